"""A terminal program for AgentAPI to drive. It answers each line word by word, within a second.

AgentAPI takes a screen as ready when one of its last lines contains a `>`.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    say("Scripted agent. Type to talk.\n")
    while True:
        say("\n> ")
        line = sys.stdin.readline()
        if not line:
            return
        say("\n")
        for word in ("You", "said:", *line.split(), "- and", "that", "is", "all."):
            time.sleep(0.1)
            say(f"{word} ")
        say("\n")


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
