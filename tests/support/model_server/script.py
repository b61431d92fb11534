"""What the scripted model says, apart from any protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Call:
    """A tool call with its arguments."""

    name: str
    arguments: Mapping[str, Any]


Block = Text | Call


@dataclass(frozen=True)
class Reply:
    """One answer of the model, which ends its turn unless it holds a call."""

    blocks: tuple[Block, ...]
    is_held: bool = False
    """Stop in the middle of the last block until the test lets the model go on."""

    @property
    def calls(self) -> list[Call]:
        return [block for block in self.blocks if isinstance(block, Call)]


def say(text: str, *, held: bool = False) -> Reply:
    return Reply((Text(text),), held)


Script = Mapping[str, Sequence[Reply]]
"""By prompt: the answer to it, and one answer more for each round of tool results."""

OTHER = say("Scripted summary.")
"""The answer to all that is no prompt of the script: titles, summaries, checks."""


@dataclass
class Asked:
    """What one request holds, as far as a script needs it."""

    texts: Sequence[str]
    """The texts of the last message of the user."""
    rounds: int
    """How often the model has answered since."""
    is_streamed: bool = True
    reply: Reply = field(default=OTHER)


def answer(script: Script, asked: Asked) -> Reply:
    """Return what the script says, `OTHER` where it says nothing."""
    for text in reversed(asked.texts):
        replies = script.get(_prompt(text))
        if replies is not None and asked.rounds < len(replies):
            return replies[asked.rounds]
    return OTHER


def _prompt(text: str) -> str:
    """Return the prompt alone: OpenCode puts it in quotes, Aider's instructions follow it."""
    return text.partition("\n\n")[0].strip().strip('"')


CHUNK = 64


def chunks(text: str) -> Iterator[str]:
    """Yield a text in the pieces that the model streams."""
    for at in range(0, len(text), CHUNK):
        yield text[at : at + CHUNK]


def last_of_user(messages: Iterable[tuple[str, Sequence[str]]]) -> Asked:
    """Return the last message of the user from (role, texts); one without text is a tool's."""
    rounds, later = 0, ""
    for role, texts in reversed(list(messages)):
        if role == "user" and texts:
            return Asked(texts, rounds)
        # An answer can be several messages: a text, and each of its calls.
        rounds += role == "assistant" and later != "assistant"
        later = role
    return Asked((), 0)
