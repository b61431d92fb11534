"""The command's root: registers every command, and is the one exit for all that fails."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from tasklogs.cli.agent import agent
from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.logs import logs
from tasklogs.cli.render.stderr import print_failure
from tasklogs.cli.serve import serve
from tasklogs.cli.serve_help import ServeCommand
from tasklogs.cli.task import task_app
from tasklogs.cli.token import token

app = typer.Typer(
    help="Keep and read the conversation logs of AI-agent tasks: live while they run,"
    " from the store while they do not.",
    epilog="Exit codes: 0 fine, 1 failed, 2 bad usage. TASKLOGS_TRACEBACK=1 shows where an"
    " unexpected error came from; NO_COLOR=1 turns colours off.",
    no_args_is_help=True,
    # Plain help and plain usage errors: Typer's Rich mode costs 75 ms on each --help.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # START_TIMEOUT, as the API writes it, is taken for start-timeout.
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
app.command(cls=ServeCommand)(serve)
app.command()(agent)
app.add_typer(task_app)
app.command()(logs)
app.command()(token)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tasklogs {version('tasklogs')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Typer needs a function to hang the options of the root on."""


def main() -> None:
    """Run the command line and exit with its code."""
    # gRPC's core writes lines of its own on connections that end, handshakes that fail and headers
    # that are too large, which strangers could fill a server's log with.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A locale that lacks a character shows its escape instead of failing.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(_run())


def _run() -> int | str | None:
    try:
        app()
    except SystemExit as exit_:
        code = exit_.code
    except CommandFailed as failure:
        print_failure(str(failure))
        code = 1
    except KeyboardInterrupt:
        code = 130
    except UnicodeEncodeError as error:
        # Python takes arguments of any bytes and marks those that are not UTF-8 as surrogates.
        print_failure(f"not UTF-8 text: {error.object!r}")
        code = 2
    except Exception as error:
        code = 1
        if os.environ.get("TASKLOGS_TRACEBACK"):
            traceback.print_exc()
        else:
            print_failure(
                f"unexpected error: {type(error).__name__}: {error}"
                " (TASKLOGS_TRACEBACK=1 shows where it came from)"
            )
    else:
        code = 0
    return code if _flush() else 1


def _flush() -> bool:
    """Write out what is buffered; False where nobody reads it any more."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes once more at its exit and would complain: give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
