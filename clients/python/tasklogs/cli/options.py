"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_SERVER = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS = 30.0
MAX_SECONDS = 86_400
_MAX_INT32 = 2**31 - 1

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")


def check_address(value: str) -> str:
    """An option's callback: return `value` if it is HOST:PORT; IPv6 needs brackets."""
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match["port"]) > 65535 or not is_host(match["host"]):
        raise typer.BadParameter(f"{value!r} is not HOST:PORT")
    return value


def is_host(host: str) -> bool:
    """Whether `host` is an IP address or can be the name of a host (IDNA)."""
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
        else:
            host.encode("idna")
    except ValueError:  # e.g. a label that is empty or too long
        return False
    return bool(host)


def check_int32(minimum: int) -> Callable[[int | None], int | None]:
    """Make an option's callback: return its value if it is an int32 of at least `minimum`.

    (Typer's own `max` would show the range in --help.)
    """

    def check(value: int | None) -> int | None:
        if value is not None and not minimum <= value <= _MAX_INT32:
            raise typer.BadParameter(f"{value} is not from {minimum} to {_MAX_INT32}")
        return value

    return check


def check_seconds(value: float | None) -> float | None:
    """An option's callback: return its value if it is from 0 to 86,400 seconds (a day)."""
    if value is not None and not 0 <= value <= MAX_SECONDS:
        raise typer.BadParameter(f"{value} is not from 0 to {MAX_SECONDS} seconds")
    return value


def parse_labels(texts: list[str] | None) -> dict[str, str]:
    """Return the labels of `--label KEY=VALUE` options. Raises typer.BadParameter."""
    labels: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--label")
        if labels.setdefault(key, value) != value:
            raise typer.BadParameter(f"{key!r} is given twice", param_hint="--label")
    return labels


class Output(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


class LogFormat(StrEnum):
    """How a process writes its own log."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The lowest level that a process writes to its own log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


TaskArgument = Annotated[
    str,
    typer.Argument(metavar="TASK", help="The task: owner/name, or its UUID.", show_default=False),
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        show_default=False,
        help="A label of the task. Repeat it for more labels.",
    ),
]
ServerOption = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="TASKLOGS_SERVER",
        metavar="HOST:PORT",
        callback=check_address,
        help="The address of the server.",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        envvar="TASKLOGS_TIMEOUT",
        metavar="SECONDS",
        callback=check_seconds,
        help="How long to wait for each response.",
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option(
        "--tls",
        envvar="TASKLOGS_TLS",
        help="Use TLS and trust the certificate authorities that gRPC includes.",
    ),
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TASKLOGS_TLS_CA",
        metavar="FILE",
        show_default=False,
        help="Use TLS and trust only the certificate authorities in FILE (PEM).",
    ),
]
TlsClientCertOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TASKLOGS_TLS_CLIENT_CERT",
        metavar="FILE",
        show_default=False,
        help="Your client certificate (PEM), if the server requires one.",
    ),
]
TlsClientKeyOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TASKLOGS_TLS_CLIENT_KEY",
        metavar="FILE",
        show_default=False,
        help="The private key of that certificate (PEM).",
    ),
]
OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", case_sensitive=False, help="Text for people, or JSON."),
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="TASKLOGS_LOG_FORMAT",
        case_sensitive=False,
        help="The format of the log on stderr: console for people, json for programs.",
    ),
]
LogLevelOption = Annotated[
    LogLevel,
    typer.Option(
        "--log-level",
        envvar="TASKLOGS_LOG_LEVEL",
        case_sensitive=False,
        help="The lowest level to log.",
    ),
]
