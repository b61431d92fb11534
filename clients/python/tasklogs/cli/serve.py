"""`tasklogs serve`: the server, from the package's `server` extra."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasklogs.cli.failure import CommandFailed, print_notice
from tasklogs.cli.options import DEFAULT_SERVER, check_address
from tasklogs.cli.spinner import Spinner

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from tasklogs_server.settings import ServerSettings


class LogFormat(StrEnum):
    """How the server writes its log."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """From where on the server writes its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _default_data_dir() -> Path:
    data_home = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    base = Path(data_home) if Path(data_home).is_absolute() else Path.home() / ".local/share"
    return base / "tasklogs"


# TLS and authentication will be options here; until then the server refuses to listen on anything
# but loopback.
def serve(
    listen: Annotated[
        str,
        typer.Option(
            envvar="TASKLOGS_LISTEN",
            metavar="HOST:PORT",
            callback=check_address,
            help="Where to listen: on loopback. Port 0 takes a free one.",
        ),
    ] = DEFAULT_SERVER,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar="TASKLOGS_DATABASE_URL",
            metavar="URL",
            show_default="an embedded Postgres in the data directory",
            help="A Postgres of your own, 15 or newer: postgresql://...",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_DATA_DIR",
            metavar="DIR",
            show_default="$XDG_DATA_HOME/tasklogs or ~/.local/share/tasklogs",
            help="Where the embedded Postgres keeps its data.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar="TASKLOGS_LOG_FORMAT", case_sensitive=False, help="On stderr."),
    ] = LogFormat.CONSOLE,
    log_level: Annotated[
        LogLevel,
        typer.Option(envvar="TASKLOGS_LOG_LEVEL", case_sensitive=False, help="From here on."),
    ] = LogLevel.INFO,
) -> None:
    """Run the server.

    On an embedded Postgres, or on one of your own. SIGTERM and Ctrl-C let running calls finish,
    then end it.
    """
    from asyncio import Runner

    try:
        from tasklogs_server import app
        from tasklogs_server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"the server is not installed here (no module {error.name});"
            " install it with: pip install 'tasklogs[server]'"
        ) from error
    settings = _settings(
        ServerSettings,
        listen=listen,
        database_url=database_url,
        data_dir=data_dir or _default_data_dir(),
        log_format=log_format.value,
        log_level=log_level.value,
    )
    spinner = Spinner("starting")
    try:
        with Runner(loop_factory=_loop_factory(settings.loop)) as runner:
            runner.run(
                app.serve(
                    settings,
                    on_progress=lambda step: _say_progress(spinner, step),
                    on_ready=lambda address: _say_ready(spinner, address),
                )
            )
    except app.StartupError as error:
        raise CommandFailed(str(error)) from error
    finally:
        spinner.stop()


def _settings(settings: type[ServerSettings], **given: Any) -> ServerSettings:
    from pydantic import ValidationError

    try:
        return settings(**given)
    except ValidationError as error:
        # Beside what is given here the settings read the environment: name the variable.
        problems = "; ".join(
            f"TASKLOGS_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        raise typer.BadParameter(problems, param_hint="settings") from error


def _loop_factory(loop: str) -> Callable[[], AbstractEventLoop] | None:
    if loop != "uvloop":
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        # Where it does not install asyncio's own loop serves, at some 10 % fewer calls a second.
        return None
    return uvloop.new_event_loop


def _say_progress(spinner: Spinner, step: str) -> None:
    if sys.stderr.isatty():
        spinner.say(step)
        spinner.start()
    else:
        print_notice(step)


def _say_ready(spinner: Spinner, address: str) -> None:
    spinner.stop()
    print_notice(f"serving on {address}; Ctrl-C ends it")
    tasklogs, grpcurl = _to_type("tasklogs"), _to_type("grpcurl")
    there = "" if address == DEFAULT_SERVER else f" --server {address}"
    for line in (
        "",
        "In another shell, with an AgentAPI server on port 3284:",
        f"  {tasklogs} task create demo --token-file demo.token{there}",
        f"  {tasklogs} task report-build local/demo --build-number 1 --transition start"
        f" --job-status succeeded{there}",
        f"  {tasklogs} agent --token-file demo.token{there}",
        "and in a third one:",
        f"  {tasklogs} logs local/demo{there}",
        f"  {grpcurl} -plaintext {address} list",
        "",
    ):
        sys.stderr.write(f"{line}\n")


def _to_type(command: str) -> str:
    """`command`, or the path to the one beside this program where the PATH knows none."""
    if shutil.which(command):
        return command
    beside = Path(sys.argv[0]).with_name(command)
    return str(beside) if beside.exists() else command
