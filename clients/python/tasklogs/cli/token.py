"""`tasklogs token`: makes a token for a server that runs with `--auth dev`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasklogs.cli.data_dir import default_data_dir
from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.render.stdout import write_line
from tasklogs.extras import how_to_install

_MAX_HOURS = 24 * 30


def _check_hours(value: float) -> float:
    if not 0 < value <= _MAX_HOURS:
        raise typer.BadParameter(f"{value:g} is not from 0 to {_MAX_HOURS} hours")
    return value


def token(
    subject: Annotated[
        str, typer.Option(metavar="NAME", help="The subject of the token, which owns tasks.")
    ] = "local",
    admin: Annotated[bool, typer.Option("--admin", help="Give it admin rights.")] = False,
    hours: Annotated[
        float, typer.Option(metavar="N", callback=_check_hours, help="How many hours it is valid.")
    ] = 8.0,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_DATA_DIR",
            metavar="DIR",
            show_default="that of `tasklogs serve`",
            help="The server's data directory, which holds the signing key.",
        ),
    ] = None,
) -> None:
    """Print a token for development.

    It is valid for a server that runs with --auth dev on this machine. Use it like this:
    export TASKLOGS_TOKEN=$(tasklogs token)
    """
    from datetime import timedelta

    try:
        from tasklogs_server.auth import development
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"the server is not installed here (no module {error.name}); {how_to_install('server')}"
        ) from error
    key = development.key_file_in(data_dir or default_data_dir())
    try:
        minted = development.mint(
            key, subject=subject, is_admin=admin, lifetime=timedelta(hours=hours)
        )
    except development.InvalidSubject as error:
        raise typer.BadParameter(
            f"it becomes the owner of tasks: {error}", param_hint="--subject"
        ) from error
    except development.NoDevelopmentKey as error:
        raise CommandFailed(str(error)) from error
    write_line(minted)
