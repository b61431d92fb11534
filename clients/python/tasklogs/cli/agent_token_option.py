"""The options that give a command the token of a task's agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.token_text import checked_token, read_token

AgentTokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="TASKLOGS_AGENT_TOKEN",
        show_default=False,
        show_envvar=True,
        help="The task's agent token. Use the variable or --token-file instead of this flag,"
        " because `ps` shows a token on the command line.",
    ),
]
AgentTokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="TASKLOGS_AGENT_TOKEN_FILE",
        metavar="FILE",
        show_default=False,
        help="A file with the agent token. -: read the token from stdin.",
    ),
]


def given_token(context: typer.Context, token: str | None, token_file: Path | None) -> str:
    """Return the token that the options give. Raises BadParameter, CommandFailed."""
    source = context.get_parameter_source("token")
    is_in_ps = source is not None and source.name == "COMMANDLINE"
    if token is not None and token_file is not None:
        # --token-file on the command line overrides the variable of --token.
        if is_in_ps:
            raise typer.BadParameter("give one of --token and --token-file", param_hint="--token")
        token = None
    if is_in_ps:
        print_notice("`ps` shows --token: use TASKLOGS_AGENT_TOKEN or --token-file instead")
    found = (
        read_token(token_file)
        if token_file is not None
        else checked_token((token or "").strip(), "TASKLOGS_AGENT_TOKEN or --token")
    )
    if not found:
        raise typer.BadParameter(
            "no agent token: give --token-file FILE or TASKLOGS_AGENT_TOKEN"
            " (`tasklogs task create` shows the token)",
            param_hint="--token-file",
        )
    return found
