"""Delivers an agent token, which the server shows only once, to a file or to stdout."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

from google.protobuf.message import Message

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.options import Output
from tasklogs.cli.render.protobuf_json import print_json, to_dict
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.render.terminal_text import visible_name
from tasklogs.connection.limits import MAX_TOKEN_BYTES

# How servers make them: the task's id, and a secret.
_AGENT_TOKEN = re.compile(r"tla_(?P<task>[0-9a-f]{32})_\S+")

Deliver: TypeAlias = Callable[[Message, str], None]
"""Called with the response that holds the token, and the token."""


@contextmanager
def hand_over(
    token_file: Path | None, output: Output, *, force: bool, task_id: Callable[[], str | None]
) -> Iterator[Deliver]:
    """Check that the token can be delivered before a call makes it; deliver it in the `with`.

    Only its owner can read `token_file`, which is replaced atomically. With a file, the token is
    not printed. A file that has anything is replaced if it is forced, or if that is the token of
    the task that `task_id` returns; None: of none.
    """
    if token_file is None:
        yield lambda response, token: _print_token(response, token, output)
        return
    _check_writable(token_file)
    if not force:
        _check_replaceable(token_file, task_id)

    def deliver(response: Message, token: str) -> None:
        _put(token, token_file)
        _print_place(response, token_file, output)

    yield deliver


def _check_writable(token_file: Path) -> None:
    if token_file.is_dir():
        raise CommandFailed(f"cannot write the token to {token_file}: it is a directory")
    if token_file.exists() and not token_file.is_file():
        raise CommandFailed(f"cannot write the token to {token_file}: it is no regular file")
    try:
        # It has no name, so that nothing is left if this process is killed during the call.
        tempfile.TemporaryFile(dir=token_file.parent).close()
    except OSError as error:
        raise CommandFailed(f"cannot write the token to {token_file}: {error.strerror}") from error


def _check_replaceable(token_file: Path, task_id: Callable[[], str | None]) -> None:
    """Raise CommandFailed if the file has anything else than a token of the task."""
    try:
        with token_file.open(encoding="utf-8", errors="replace") as opened:
            held = opened.read(MAX_TOKEN_BYTES).strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(f"cannot read {token_file}: {error.strerror}") from error
    if not held:
        return
    holder = _task_of(held)
    if holder is None or holder != task_id():
        what = "something else" if holder is None else f"the agent token of the task {holder}"
        raise CommandFailed(f"{token_file} holds {what}: to replace it, use --force")


def _task_of(token: str) -> str | None:
    """Return the id of the task that an agent token names."""
    match = _AGENT_TOKEN.fullmatch(token)
    return None if match is None else str(UUID(hex=match["task"]))


def _put(token: str, token_file: Path) -> None:
    draft = None
    try:
        # mkstemp sets mode 0600. In the same directory, the rename is atomic.
        handle, name = tempfile.mkstemp(dir=token_file.parent, prefix=f".{token_file.name}.")
        draft = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(f"{token}\n")
        draft.replace(token_file)
    except OSError as error:
        raise CommandFailed(
            f"cannot write the token to {token_file}: {error.strerror};"
            " get another with `tasklogs task rotate-token`"
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


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
