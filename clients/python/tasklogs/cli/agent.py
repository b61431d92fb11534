"""`tasklogs agent`: sends a task app's conversation to the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasklogs.tracing.base import Tracing

from tasklogs.cli.agent_token_option import (
    AgentTokenFileOption,
    AgentTokenOption,
    given_token,
)
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
    is_host,
)
from tasklogs.cli.render.stderr import print_failure
from tasklogs.cli.target import chosen_tls, warn_of_plain_text
from tasklogs.cli.token_text import STANDARD_INPUT, rereading

_WITHOUT_GOODBYE = 3
"""The exit code of an agent that left without a confirmed goodbye."""


def _check_url(value: str) -> str:
    from httpx import URL, InvalidURL

    try:
        parsed = URL(value)
        port_fits = parsed.port is None or 0 < parsed.port < 65536
        fits = port_fits and parsed.scheme in ("http", "https") and is_host(parsed.host)
    except InvalidURL:
        fits = False
    if not fits:
        raise typer.BadParameter(f"{value!r} is not an http URL")
    return value


def agent(
    context: typer.Context,
    server: ServerOption = DEFAULT_SERVER,
    token: AgentTokenOption = None,
    token_file: AgentTokenFileOption = None,
    agentapi_url: Annotated[
        str,
        typer.Option(
            envvar="TASKLOGS_AGENTAPI_URL",
            metavar="URL",
            callback=_check_url,
            help="The URL of the task app (AgentAPI).",
        ),
    ] = "http://localhost:3284",
    source: Annotated[
        str,
        typer.Option(
            envvar="TASKLOGS_SOURCE",
            metavar="NAME",
            help="What the agent reads: agentapi, the transcript of claude-code, codex, gemini,"
            " opencode or aider, acp (a recorded ACP stream), or jsonl (JSON lines of any program)."
            " With auto, it takes the transcript of the AI agent that AgentAPI says it runs, else"
            " the one that changed last in the current directory, and logs which.",
        ),
    ] = "agentapi",
    transcript: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_TRANSCRIPT",
            metavar="PATH",
            show_default="where the agent of the source writes",
            help="The file or directory that the source reads. With acp or jsonl, - is stdin.",
        ),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX",
            show_default=False,
            help="Replace what this regular expression (RE2) matches with [redacted] before"
            " anything is sent. Can be repeated.",
        ),
    ] = None,
    thoughts: Annotated[
        bool,
        typer.Option(
            "--thoughts",
            envvar="TASKLOGS_THOUGHTS",
            help="Send what the model thought, too, where a transcript has it.",
        ),
    ] = False,
    build_number: Annotated[
        int | None,
        typer.Option(
            envvar="TASKLOGS_BUILD_NUMBER",
            metavar="N",
            callback=check_int32(1),
            show_default="the latest start build",
            help="The number of the workspace build that the agent belongs to. If it is set, the"
            " agent exits with code 1 when a newer build starts.",
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
            help="Export traces with OTLP. The OTEL_* variables set the destination.",
        ),
    ] = False,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Send the conversation of an AI agent to the server.

    The agent runs next to the task app, or reads what another program writes (--source,
    --transcript). When its connection breaks, or a proxy refuses it (HTTP 401, 403, 404 and
    others), it connects again. If the server refuses the token, the agent waits up to 150 s for a
    new token in --token-file, and tries the refused one again about once a minute.

    On SIGTERM, SIGHUP or Ctrl-C the agent reads its source once more, sends what is new, ends its
    session with the server (goodbye) and exits within 10 s. If no server answers, it exits at once.
    SIGTERM tells the server that the workspace pauses. Ctrl-C (SIGINT) and SIGHUP tell the server
    that only the agent stops. At the end of stdin, the sources acp and jsonl do as on SIGTERM, but
    the agent waits 8 s for a server. A second SIGTERM or Ctrl-C ends the agent at once.

    \b
    Exit codes:
      0  The server confirmed the goodbye, or another agent has the session.
      1  The agent cannot go on: the task was deleted, the token is refused,
         the agent may not connect, a newer build has started, or the
         stored log cannot be continued.
      2  Bad usage.
      3  The agent was told to leave, or its source ended, and no server
         confirmed the goodbye. The end of the log may be missing.
    """
    from tasklogs import log_output
    from tasklogs.agent import program
    from tasklogs.agent.run import Options
    from tasklogs.agent.sources.options import UnusableSource
    from tasklogs.publish.departure import LeftWithoutGoodbye
    from tasklogs.publish.journal import LogDiverged
    from tasklogs.publish.reconnect import Fatal
    from tasklogs.tracing.base import Tracing

    if transcript == STANDARD_INPUT == token_file:
        raise typer.BadParameter(
            "stdin is the token: it cannot be read twice", param_hint="--transcript"
        )
    found = given_token(context, token, token_file)
    log_output.configure(log_format.value, log_level.value)
    chosen = chosen_tls(tls, tls_ca, tls_client_cert, tls_client_key)
    warn_of_plain_text(server, chosen)
    options = Options(
        server,
        found,
        agentapi_url,
        build_number,
        chosen,
        rereading(token_file),
        source,
        transcript,
        tuple(redact or ()),
        thoughts,
    )
    tracing = _tracing() if traces else Tracing()
    try:
        program.run(options, tracing)
    except UnusableSource as error:
        hint = "--redact" if str(error).startswith("--redact") else "--source"
        raise typer.BadParameter(str(error), param_hint=hint) from None
    except (Fatal, LogDiverged) as error:
        raise CommandFailed(str(error)) from None
    except LeftWithoutGoodbye as error:
        log_output.flush()
        print_failure(f"stopped without a confirmed goodbye: {error}")
        raise typer.Exit(_WITHOUT_GOODBYE) from None
    finally:
        tracing.close()
        log_output.flush()


def _tracing() -> Tracing:
    from tasklogs.tracing.opening import TracingUnavailable, open_tracing

    try:
        # A sync is traced if the reader's call is. What begins here is a stream, which is rare.
        return open_tracing("tasklogs-agent", sampled=1.0)
    except TracingUnavailable as error:
        raise CommandFailed(str(error)) from None
