"""What the scripted model and its user say to each other, whichever agent stands between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasklogs import TaskLogType
from tests.support.model_server import Call, Reply, Script, Text, say

LOOK = "Look at the file."
SAY = "Say it."
SAY_AGAIN = "Say it again."
COUNT = "Count to 3000."
CODE = "Show code."
HELD = "Say something long."
GO_ON = "Go on."
FORKED = "Go on in another way."
COMPACTED = "Go on after the compaction."
WRITE = "Write a file."
OTHER = "Talk about something else."

SAME = "The same answer."
LINES = "\n".join(f"line {number}" for number in range(1, 3001))
FENCED = "Here it is:\n\n```python\nprint('漢字 \N{GRINNING FACE}')\n```\n\nThat is all."
EDIT = "I will change it.\n\nhello.txt\n```\nhello again\n```"
LONG = "An answer that is cut short. " * 60


@dataclass(frozen=True)
class Said:
    """An entry that the log must have. `name` is the tool's."""

    type: TaskLogType
    content: str
    name: str = ""


def script(call: Call | None, write: Call | None = None) -> Script:
    """Return what the model says. The calls are of tools that the agent has.

    None: the agent has no tools, and does what the answer says.
    """
    looked = [Reply((Text("I will look."), call)), say("It says hello.")] if call else [say(EDIT)]
    wrote = [Reply((Text("I will write."), write)), say("It is written.")] if write else []
    return {
        WRITE: wrote,
        LOOK: looked,
        SAY: [say(SAME)],
        SAY_AGAIN: [say(SAME)],
        COUNT: [say(LINES)],
        CODE: [say(FENCED)],
        HELD: [say(LONG, held=True)],
        GO_ON: [say("I go on.")],
        FORKED: [say("I go on in another way.")],
        COMPACTED: [say("I remember.")],
        OTHER: [say("Another talk.")],
    }


def turn(prompt: str, replies: Sequence[Reply]) -> Iterator[Said]:
    """Yield the entries of a turn, without the results of its tools."""
    yield Said(TaskLogType.INPUT, prompt)
    for reply in replies:
        for block in reply.blocks:
            if isinstance(block, Text):
                yield Said(TaskLogType.OUTPUT, block.text)
            else:
                yield Said(TaskLogType.TOOL_CALL, "", block.name)
                yield Said(TaskLogType.TOOL_RESULT, "", block.name)


def hello_file(work: Path) -> Path:
    return work / "hello.txt"
