"""`tasklogs serve`: the server, from the package's `server` extra."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasklogs.cli.data_dir import default_data_dir
from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.options import (
    DEFAULT_SERVER,
    LogFormat,
    LogFormatOption,
    LogLevel,
    LogLevelOption,
    check_address,
)
from tasklogs.cli.render import stderr
from tasklogs.cli.render.spinner import Spinner
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.render.terminal_text import visible_name
from tasklogs.extras import how_to_install

if TYPE_CHECKING:
    from tasklogs_server.settings import ServerSettings


class Auth(StrEnum):
    """How the server authenticates callers."""

    NONE = "none"
    JWT = "jwt"
    MTLS = "mtls"
    DEV = "dev"


def _warn_of_a_password(context: typer.Context, value: str | None) -> str | None:
    """An option's callback: warn that `ps` shows a password on the command line."""
    source = context.get_parameter_source("database_url")
    if value is not None and source is not None and source.name == "COMMANDLINE":
        host, _, query = value.partition("?")
        user = host.rpartition("@")[0].partition("://")[2]
        if ":" in user or "password=" in query:
            print_notice("`ps` shows the password in --database-url: use TASKLOGS_DATABASE_URL")
    return value


def serve(
    listen: Annotated[
        str,
        typer.Option(
            envvar="TASKLOGS_LISTEN",
            metavar="HOST:PORT",
            callback=check_address,
            help="The address to listen on. A non-loopback address requires TLS, and --auth jwt or"
            " --auth mtls. With port 0, the server picks a free port.",
        ),
    ] = DEFAULT_SERVER,
    workers: Annotated[
        int,
        typer.Option(
            envvar="TASKLOGS_WORKERS",
            metavar="N",
            min=0,
            max=256,
            help="How many processes serve the port. 0: one per processor core. The limits below"
            " apply to each of them.",
        ),
    ] = 1,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar="TASKLOGS_DATABASE_URL",
            metavar="URL",
            callback=_warn_of_a_password,
            show_default="an embedded Postgres in the data directory",
            help="Your own Postgres, version 15 or newer: postgresql://... If the URL has a"
            " password, use the variable, not the command line.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_DATA_DIR",
            metavar="DIR",
            show_default="$XDG_DATA_HOME/tasklogs or ~/.local/share/tasklogs",
            help="The directory of the embedded Postgres and of the key for --auth dev.",
        ),
    ] = None,
    bus: Annotated[
        str,
        typer.Option(
            envvar="TASKLOGS_BUS",
            metavar="BUS",
            help="How several servers on one database tell each other what changed: postgres, or"
            " the URLs of a NATS cluster's nodes (nats://HOST:4222,nats://...).",
        ),
    ] = "postgres",
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_TLS_CERT",
            metavar="FILE",
            show_default=False,
            help="A file with the server's certificate chain (PEM). The server loads a changed file"
            " without a restart.",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_TLS_KEY",
            metavar="FILE",
            show_default=False,
            help="A file with the private key of that certificate (PEM).",
        ),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_TLS_CLIENT_CA",
            metavar="FILE",
            show_default=False,
            help="A file with certificate authorities (PEM). Every client must then present a"
            " certificate that one of these authorities signed.",
        ),
    ] = None,
    auth: Annotated[
        Auth,
        typer.Option(
            envvar="TASKLOGS_AUTH",
            case_sensitive=False,
            help="How the server authenticates callers. none: not at all. jwt: by bearer tokens of"
            " an issuer. mtls: by the subject alternative name in a client certificate. dev: by"
            " tokens from `tasklogs token`, for development. Agents always use the token of their"
            " task.",
        ),
    ] = Auth.NONE,
    jwt_issuer: Annotated[
        str | None,
        typer.Option(
            envvar="TASKLOGS_JWT_ISSUER",
            metavar="ISS",
            show_default=False,
            help="With --auth jwt: the issuer (`iss`) that a token must have.",
        ),
    ] = None,
    jwt_audience: Annotated[
        str | None,
        typer.Option(
            envvar="TASKLOGS_JWT_AUDIENCE",
            metavar="AUD",
            show_default=False,
            help="With --auth jwt: the audience (`aud`) that a token must have.",
        ),
    ] = None,
    jwks_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_JWKS_FILE",
            metavar="FILE",
            show_default=False,
            help="With --auth jwt: a file with the issuer's keys (JWKS). The server loads a changed"
            " file without a restart.",
        ),
    ] = None,
    jwks_url: Annotated[
        str | None,
        typer.Option(
            envvar="TASKLOGS_JWKS_URL",
            metavar="URL",
            show_default=False,
            help="With --auth jwt: the URL where the issuer publishes its keys (JWKS).",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            envvar="TASKLOGS_INSECURE",
            help="Allow a non-loopback address without TLS or authentication. With --auth none, any"
            " client that can connect has admin rights.",
        ),
    ] = False,
    log_format: LogFormatOption = LogFormat.CONSOLE,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Run the server.

    The server stores logs in an embedded Postgres, or in your own Postgres (--database-url). On
    SIGTERM or Ctrl-C it refuses new calls, waits for open calls, and exits. A second signal ends it
    at once. Flags override environment variables.
    """
    try:
        from tasklogs import log_output
        from tasklogs_server import entry
        from tasklogs_server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    settings = _settings(
        ServerSettings,
        listen=listen,
        workers=workers,
        database_url=database_url,
        data_dir=data_dir or default_data_dir(),
        bus=bus,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        auth=auth.value,
        jwt_issuer=jwt_issuer,
        jwt_audience=jwt_audience,
        jwks_file=jwks_file,
        jwks_url=jwks_url,
        insecure=insecure,
        log_format=log_format.value,
        log_level=log_level.value,
    )
    spinner = Spinner("starting")
    try:
        entry.serve(
            settings,
            on_progress=lambda step: _say_progress(spinner, step),
            on_ready=lambda address: _say_ready(spinner, address, settings),
        )
    except ModuleNotFoundError as error:  # of what `entry` loads only now
        raise _not_installed(error) from error
    except entry.StartupError as error:
        raise CommandFailed(str(error)) from error
    finally:
        spinner.stop()
        log_output.flush()


def _not_installed(error: ModuleNotFoundError) -> CommandFailed:
    return CommandFailed(
        f"the server is not installed here (no module {error.name}); {how_to_install('server')}"
    )


def _settings(settings: type[ServerSettings], **given: Any) -> ServerSettings:
    from pydantic import ValidationError

    try:
        return settings(**given)
    except ValidationError as error:
        # The settings also read the environment: name the variable.
        problems = "; ".join(
            stderr.without_prefix(
                f"TASKLOGS_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            )
            for problem in error.errors()
        )
        raise typer.BadParameter(problems, param_hint="settings") from error


def _say_progress(spinner: Spinner, step: str) -> None:
    if sys.stderr.isatty():
        spinner.say(step)
        spinner.start()
    else:
        print_notice(step)


def _say_ready(spinner: Spinner, address: str, settings: ServerSettings) -> None:
    spinner.stop()
    print_notice(f"serving on {address}; stop with Ctrl-C")
    if settings.log_format == "json":
        return  # the log is for programs, the hints are for people
    for line in ("", *_what_to_type(_to_connect_to(address), settings), ""):
        stderr.write(f"{visible_name(line)}\n")


def _to_connect_to(address: str) -> str:
    """Return an address to connect to; HOST stands for the name of this machine."""
    host, _, port = address.rpartition(":")
    return f"HOST:{port}" if host in ("0.0.0.0", "[::]") else address


def _what_to_type(address: str, settings: ServerSettings) -> Iterator[str]:
    tasklogs, grpcurl = _to_type("tasklogs"), _to_type("grpcurl")
    owner = "local" if settings.auth in ("none", "dev") else "OWNER"
    there = "" if address == DEFAULT_SERVER else f" --server {address}"
    if settings.tls_cert is not None:
        there += " --tls-ca FILE"
    match settings.auth:
        case "jwt":
            yield (
                "Callers need a token of the issuer: set TASKLOGS_TOKEN, or use"
                " --auth-token-file FILE."
            )
        case "mtls":
            there += " --tls-client-cert FILE --tls-client-key FILE"
        case "dev":
            default = settings.data_dir == default_data_dir()
            place = "" if default else f" --data-dir {settings.data_dir}"
            yield f"  export TASKLOGS_TOKEN=$({tasklogs} token{place})"
    yield "In another shell, with an AgentAPI server on port 3284:"
    yield f"  {tasklogs} task create demo --token-file demo.token{there}"
    yield (
        f"  {tasklogs} task report-build {owner}/demo --build-number 1 --transition start"
        f" --job-status succeeded{there}"
    )
    yield f"  {tasklogs} agent --token-file demo.token{there}"
    yield "In a third shell:"
    yield f"  {tasklogs} logs {owner}/demo{there}"
    if settings.auth == "none" and settings.tls_cert is None:
        yield f"  {grpcurl} -plaintext {address} list"


def _to_type(command: str) -> str:
    """Return `command`, or the path of the one beside this program if it is not on the PATH."""
    if shutil.which(command):
        return command
    beside = Path(sys.argv[0]).with_name(command)
    return str(beside) if beside.exists() else command
