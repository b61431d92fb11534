"""`tasklogs agent`: the sidecar beside a task app."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasklogs.tracing.base import Tracing

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.options import (
    DEFAULT_SERVER,
    LogFormat,
    LogFormatOption,
    LogLevel,
    LogLevelOption,
    ServerOption,
    TlsCaOption,
    TlsClientCertOption,
    TlsClientKeyOption,
    TlsOption,
    check_int32,
)
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.target import chosen_tls, warn_of_plain_text
from tasklogs.cli.token_text import checked_token, read_token, rereading


def _check_url(value: str) -> str:
    from urllib.parse import urlsplit

    try:
        parsed = urlsplit(value)
        fits = parsed.scheme in ("http", "https") and parsed.hostname and parsed.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise typer.BadParameter(f"{value!r} is not an http URL")
    return value


def agent(
    context: typer.Context,
    server: ServerOption = DEFAULT_SERVER,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TASKLOGS_AGENT_TOKEN",
            show_default=False,
            show_envvar=True,
            help="The task's agent token. On the command line it shows in `ps`: prefer the variable"
            " or --token-file.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_AGENT_TOKEN_FILE",
            metavar="FILE",
            show_default=False,
            help="A file with the token; - is stdin.",
        ),
    ] = None,
    agentapi_url: Annotated[
        str,
        typer.Option(
            envvar="TASKLOGS_AGENTAPI_URL",
            metavar="URL",
            callback=_check_url,
            help="The task app.",
        ),
    ] = "http://localhost:3284",
    build_number: Annotated[
        int | None,
        typer.Option(
            envvar="TASKLOGS_BUILD_NUMBER",
            metavar="N",
            callback=check_int32(1),
            show_default="the latest start build",
            help="The workspace build that this agent belongs to; it ends when a newer one starts.",
        ),
    ] = None,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_client_cert: TlsClientCertOption = None,
    tls_client_key: TlsClientKeyOption = None,
    traces: Annotated[
        bool,
        typer.Option(
            "--traces",
            envvar="TASKLOGS_TRACES",
            help="Export traces by OTLP; the OTEL_* variables say where to.",
        ),
    ] = False,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Carry a task app's conversation to the server.

    Reconnects for as long as the task exists and its token holds; then it ends with exit code 1.
    Where the token was rotated, the new one has 150 s to come into --token-file.
    SIGTERM: a last sync, then goodbye (the workspace pauses); Ctrl-C: the same (only the agent
    stops). Both end it with exit code 0 within 10 s.
    """
    from tasklogs import log_output
    from tasklogs.agent import program
    from tasklogs.agent.run import Options
    from tasklogs.agent.stream.reconnect import Fatal
    from tasklogs.tracing.base import Tracing

    found = _token(context, token, token_file)
    log_output.configure(log_format.value, log_level.value)
    chosen = chosen_tls(tls, tls_ca, tls_client_cert, tls_client_key)
    warn_of_plain_text(server, chosen)
    options = Options(server, found, agentapi_url, build_number, chosen, rereading(token_file))
    tracing = _tracing() if traces else Tracing()
    try:
        program.run(options, tracing)
    except Fatal as error:
        raise CommandFailed(str(error)) from None
    except program.LeftWithoutGoodbye as error:
        raise CommandFailed(f"left without a goodbye: {error}") from None
    finally:
        tracing.close()


def _tracing() -> Tracing:
    from tasklogs.tracing.opening import TracingUnavailable, open_tracing

    try:
        # Syncs are traced where the reader's call is; what begins here is a stream now and then.
        return open_tracing("tasklogs-agent", sampled=1.0)
    except TracingUnavailable as error:
        raise CommandFailed(str(error)) from None


def _token(context: typer.Context, token: str | None, token_file: Path | None) -> str:
    source = context.get_parameter_source("token")
    is_in_ps = source is not None and source.name == "COMMANDLINE"
    if token is not None and token_file is not None:
        # A variable that is set for all must not stand in the way of what is asked for here.
        if is_in_ps:
            raise typer.BadParameter("give one of --token and --token-file", param_hint="--token")
        token = None
    if is_in_ps:
        print_notice("--token shows in `ps`: use TASKLOGS_AGENT_TOKEN or --token-file instead")
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
