"""Delivers an agent token, which the server shows only once, to a file or to stdout."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from google.protobuf.message import Message

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.options import Output
from tasklogs.cli.render.protobuf_json import print_json, to_dict
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.render.terminal_text import visible_name

Deliver: TypeAlias = Callable[[Message, str], None]
"""Called with the response that holds the token, and the token."""


@contextmanager
def hand_over(token_file: Path | None, output: Output) -> Iterator[Deliver]:
    """Check that the token can be delivered before a call makes it; deliver it in the `with`.

    Only its owner can read `token_file`, which is replaced atomically. With a file, the token is
    not printed.
    """
    if token_file is None:
        yield lambda response, token: _print_token(response, token, output)
        return
    draft = _draft_for(token_file)
    try:

        def deliver(response: Message, token: str) -> None:
            _put(token, draft, token_file)
            _print_place(response, token_file, output)

        yield deliver
    finally:
        draft.unlink(missing_ok=True)


def _draft_for(token_file: Path) -> Path:
    if token_file.is_dir():
        raise CommandFailed(f"cannot write the token to {token_file}: it is a directory")
    try:
        # mkstemp sets mode 0600. In the same directory, the rename is atomic.
        handle, name = tempfile.mkstemp(dir=token_file.parent, prefix=f".{token_file.name}.")
    except OSError as error:
        raise CommandFailed(f"cannot write the token to {token_file}: {error.strerror}") from error
    os.close(handle)
    return Path(name)


def _put(token: str, draft: Path, token_file: Path) -> None:
    try:
        draft.write_text(f"{token}\n", encoding="utf-8")
        draft.replace(token_file)
    except OSError as error:
        raise CommandFailed(
            f"cannot write the token to {token_file}: {error.strerror};"
            " get another with `tasklogs task rotate-token`"
        ) from error


def _print_token(response: Message, token: str, output: Output) -> None:
    if output is Output.JSON:
        print_json(to_dict(response))
        return
    write_line(f"agent token, shown only once: {visible_name(token)}")
    write_line("for the agent, in its environment:  TASKLOGS_AGENT_TOKEN=... tasklogs agent")
    write_line("  or in a file of mode 0600:        tasklogs agent --token-file FILE")


def _print_place(response: Message, token_file: Path, output: Output) -> None:
    if output is Output.JSON:
        shown = to_dict(response)
        del shown["agentToken"]
        print_json(shown)
        return
    place = visible_name(str(token_file))
    write_line(f"agent token in {place}; for the agent:  tasklogs agent --token-file {place}")
