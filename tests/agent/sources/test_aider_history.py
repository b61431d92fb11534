"""How Aider's chat history is cut into blocks: nothing in it is escaped."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasklogs.agent.sources import aider_history
from tasklogs.agent.sources.aider_history import INPUT_HISTORY, Blocks, ChatHistory
from tasklogs.agent.sources.line_file import Change

HEADER = "\n# aider chat started at 2026-12-01 01:18:{:02}\n\n> aider --model m --api-key {}  \n"
VERSION = "> Aider v0.86.2  \n"
RESTORED = "> Restored previous conversation history.  \n"


class Chat:
    """Writes what Aider would, and reads it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / ".aider.chat.history.md"
        self.history = ChatHistory(self.path)

    def start(self, *, resume: bool = False, second: int = 0) -> None:
        self.write(HEADER.format(second, "secret") + VERSION + RESTORED * resume)

    def say(self, text: str) -> None:
        entered = "".join(f"+{line}\n" for line in text.split("\n"))
        with self.path.with_name(INPUT_HISTORY).open("a") as file:
            file.write(f"\n# 2026-12-01 01:18:25.376129\n{entered}")
        self.write("\n" + "".join(f"#### {line}  \n" for line in text.splitlines()))

    def answer(self, text: str) -> None:
        self.write(f"\n{text}\n\n")

    def notice(self, text: str) -> None:
        self.write(f"> {text}  \n")

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def read(self) -> list[Any]:
        """Read to the end; `---` is where another conversation begins."""
        found: list[Any] = []
        while True:
            look = self.history.look()
            for row in map(json.loads, look.lines):
                if "left_out" in row:
                    continue
                shown = f"{row['type'].lower()}: {row['content']}"
                found.append(("again", shown) if row["again"] else shown)
            if look.change is Change.STARTED_OVER:
                found.append("---")
            if look.is_end:
                return found


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return Chat(tmp_path)


STARTED = "notice: aider chat started at 2026-12-01 01:18:00\nAider v0.86.2"


def test_what_was_said_and_done_are_entries(chat: Chat) -> None:
    chat.start()
    chat.say("Why?\n\nSay it.")
    chat.answer("Because.\n\nThat is why.")
    chat.notice("Tokens: 10 sent.")
    chat.notice("Applied edit to a.txt")
    assert chat.read() == [
        STARTED,
        "input: Why?\n\nSay it.",
        "output: Because.\n\nThat is why.",
        "notice: Tokens: 10 sent.\nApplied edit to a.txt",
    ]


def test_the_command_line_is_left_out(chat: Chat) -> None:
    """Aider removes some keys from it, not all. A message of it may have many lines."""
    chat.write(HEADER.format(0, "secret\n\nof\n> several  \nlines") + VERSION)
    chat.say("Why?")
    assert chat.read() == [STARTED, "input: Why?"]


def test_a_heading_of_an_answer_is_no_input(chat: Chat) -> None:
    chat.start()
    chat.say("Why?")
    answer = "First:\n\n#### So  \n\n#### Why?\n\n> a quote\n\ntext\n> more  \n#### Why?  \nEnd."
    chat.answer(answer)
    assert chat.read()[1:] == ["input: Why?", f"output: {answer}"]


def test_without_the_history_of_inputs_nothing_is_an_input(chat: Chat) -> None:
    chat.start()
    chat.write("\n#### Why?  \n")
    chat.answer("Because.")
    assert chat.read()[1:] == ["output: #### Why?  \n\nBecause."]


def test_an_answer_that_the_user_stopped_comes_after_the_notice(chat: Chat) -> None:
    chat.start()
    chat.say("Why?")
    chat.write(">  \n>  \n> ^C again to exit  \n")
    chat.answer("Because of")
    assert chat.read()[2:] == ["notice: \n\n^C again to exit", "output: Because of"]


def test_an_input_of_nothing_is_left_out(chat: Chat) -> None:
    chat.start()
    chat.write("\n#### <blank>  \n")
    chat.say("Why?")
    assert chat.read()[1:] == ["input: Why?"]


def test_a_start_is_another_conversation_unless_it_restores_one(chat: Chat) -> None:
    chat.start()
    chat.say("one")
    chat.start(resume=True)
    chat.say("two")
    chat.start(second=30)
    chat.say("three")
    again = STARTED + "\nRestored previous conversation history."
    other = STARTED.replace(":00", ":30")
    assert chat.read() == [STARTED, "input: one", again, "input: two", "---", other, "input: three"]


def test_a_start_is_shown_once_something_is_said(chat: Chat) -> None:
    chat.start()
    assert chat.read() == []
    chat.say("one")
    assert chat.read() == [STARTED, "input: one"]
    chat.start(second=30)
    assert chat.read() == []


def test_a_start_that_does_nothing_is_left_out(chat: Chat) -> None:
    chat.write(HEADER.format(0, "--list-models m"))
    chat.start()
    chat.say("one")
    assert chat.read() == [STARTED, "input: one"]


def test_an_answer_with_the_line_of_a_start_is_kept(chat: Chat) -> None:
    chat.start()
    chat.say("one")
    chat.answer("Look:\n\n# aider chat started at 2026-12-01 01:18:00\n\nThat is it.")
    chat.start(second=30)
    chat.say("two")
    found = chat.read()
    assert "# aider chat started" in found[2]
    assert found[2].endswith("That is it.")
    assert found[3] == "---"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_newest_conversation_is_read_first(chat: Chat, count: int) -> None:
    for number in range(count):
        chat.start()
        chat.say(f"{number}")
        chat.start(resume=True)
        chat.say(f"{number} again")
    chat.history.begin(at_newest=True)
    found = chat.read()
    assert [one for one in found if one.startswith("input")] == [
        f"input: {count - 1}",
        f"input: {count - 1} again",
    ]
    chat.start()
    chat.say("more")
    assert chat.read() == ["---", STARTED, "input: more"]


def test_an_entry_that_grows_comes_again(chat: Chat) -> None:
    chat.start()
    chat.say("Why?")
    chat.answer("Because")
    assert chat.read()[2:] == ["output: Because"]
    assert chat.read() == []
    chat.answer("it is.")
    assert chat.read() == [("again", "output: Because\n\n\nit is.")]
    chat.notice("Tokens")
    assert chat.read() == ["notice: Tokens"]


@pytest.mark.parametrize("seed", range(10))
def test_any_pieces_give_the_same_entries(chat: Chat, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(4):
        chat.start(resume=number == 2)
        chat.say(f"{number}\n\nof many")
        chat.answer(f"answer {number}\n\n```\n\n\n#### {number}\n> x\n```")
        chat.notice("Tokens")
    whole, said = chat.read(), chat.path.read_text()
    chat.path.unlink()
    chat.history.start_over()
    places = sorted(rng.randrange(len(said)) for _ in range(40))
    found: list[Any] = []
    for start, end in pairwise([0, *places, len(said)]):
        chat.write(said[start:end])
        for one in chat.read():
            if isinstance(one, tuple):
                found[-1] = one[1]
            else:
                found.append(one)
    assert found == whole


def test_a_long_answer_is_shown_once(chat: Chat) -> None:
    chat.start()
    chat.say("Count.")
    chat.answer("\n".join(f"line {number}" for number in range(100_000)))
    assert len(chat.read()) == 3


def test_a_block_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aider_history, "MOST_BLOCK_BYTES", 100)
    blocks = Blocks(lambda _: False)
    found = [one for _ in range(100) for one in blocks.add("0123456789")]
    assert max(len(one.content) for one in found if isinstance(one, aider_history.Block)) <= 100
    assert len(found) > 8


def test_another_file_is_another_conversation(chat: Chat) -> None:
    chat.start()
    chat.say("one")
    chat.read()
    chat.path.unlink()
    chat.start(second=30)
    chat.say("two")
    other = STARTED.replace(":00", ":30")
    assert chat.read() == ["---", other, "input: two"]


def test_an_input_history_that_cannot_be_read_loses_nothing(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.start()
    chat.say("one")

    def refused() -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(chat.history._entered, "read", refused)
        with pytest.raises(PermissionError):
            chat.history.look()
    assert chat.read() == [STARTED, "input: one"]
