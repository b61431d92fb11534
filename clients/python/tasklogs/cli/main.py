"""The root command: registers the others and turns every failure into a line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer

from tasklogs.cli.agent import agent
from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.logs import logs
from tasklogs.cli.render import standard_streams
from tasklogs.cli.render.standard_streams import StdoutFailed, discard
from tasklogs.cli.render.stderr import print_failure, print_usage_error
from tasklogs.cli.serve import serve
from tasklogs.cli.serve_help import ServeCommand
from tasklogs.cli.server_info import server_info
from tasklogs.cli.task import task_app
from tasklogs.cli.token import token
from tasklogs.cli.upload import upload
from tasklogs.cli.variables import warn_of_misspelt

# Typer has a copy of Click and does not export this class of it.
_USAGE_ERROR: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)

_INTERRUPTED = 130
"""The exit code of a shell for a command that SIGINT ended."""

app = typer.Typer(
    help="Keep and read the conversation logs of AI-agent tasks: live while they run,"
    " from the store while they do not.",
    epilog="Exit codes: 0 success, 1 failure (also if stdout takes no more), 2 bad usage, 130"
    " Ctrl-C. Flags override environment variables."
    " TASKLOGS_TRACEBACK=1 shows where an unexpected error came from. NO_COLOR=1 turns off"
    " colours.",
    no_args_is_help=True,
    # Plain help and plain usage errors: Typer's Rich mode adds 75 ms to each --help.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # --log_format is the same as --log-format.
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
app.command(cls=ServeCommand)(serve)
app.command()(agent)
app.add_typer(task_app)
app.command()(logs)
app.command()(upload)
app.command()(server_info)
app.command()(token)


def _print_version(wanted: bool) -> None:
    if wanted:
        from tasklogs.version import version

        typer.echo(f"tasklogs {version()}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Typer takes the options of the root from a function."""
    warn_of_misspelt(context.command)


def main() -> None:
    """Run the command line and exit with its code."""
    # gRPC's core writes its own lines about lost connections, failed handshakes and large headers.
    # Any client could fill a server's log with them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    standard_streams.prepare()
    sys.exit(_run())


def _run() -> int | str | None:
    """Run the command; return its exit code. Nothing is left to be written."""
    try:
        code = _ended()
        if code == _INTERRUPTED:
            discard(sys.stdout)  # its reader may have stalled
        sys.stdout.flush()
    except StdoutFailed as failure:
        discard(sys.stdout)
        print_failure(str(failure))
        code = 1
    except BrokenPipeError:
        discard(sys.stdout)
        code = 1
    except KeyboardInterrupt:
        discard(sys.stdout)
        code = _INTERRUPTED
    try:
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)
    return code


def _ended() -> int | str | None:
    try:
        code: int | str | None = app(standalone_mode=False) or 0
        return code
    except SystemExit as exit_:
        return exit_.code
    except _USAGE_ERROR as error:
        print_usage_error(error)
        return int(error.exit_code)
    except typer.Abort:
        print_failure("aborted")
        return 1
    except CommandFailed as failure:
        print_failure(str(failure))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except UnicodeEncodeError as error:
        # Python accepts arguments of any bytes and turns those that are not UTF-8 into surrogates.
        print_failure(f"not UTF-8 text: {error.object!r}")
        return 2
    except (BrokenPipeError, StdoutFailed):
        raise
    except Exception as error:
        if os.environ.get("TASKLOGS_TRACEBACK"):
            traceback.print_exc()
        else:
            print_failure(
                f"unexpected error: {type(error).__name__}: {error}"
                " (TASKLOGS_TRACEBACK=1 shows where it came from)"
            )
        return 1
