"""The options that say which server a command calls, whom it trusts, and with which token."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.options import (
    DEFAULT_SERVER,
    DEFAULT_TIMEOUT_SECONDS,
    ServerOption,
    TimeoutOption,
    TlsCaOption,
    TlsClientCertOption,
    TlsClientKeyOption,
    TlsOption,
)
from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.token_text import STANDARD_INPUT, checked_token, read_token

if TYPE_CHECKING:
    from tasklogs.connection.tls import Tls

_TOKEN_VARIABLE = "TASKLOGS_TOKEN"


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the caller's credentials. `token()` is called before each call: files change."""

    server: str
    timeout_seconds: float
    tls: Tls | None = None
    token: Callable[[], str] | None = field(default=None, repr=False)


def connects(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter `target` by the options of a connection."""
    signature = inspect.signature(command, eval_str=True)
    options = inspect.signature(_target, eval_str=True).parameters
    own = [one for name, one in signature.parameters.items() if name != "target"]

    @functools.wraps(command)
    def connected(**given: object) -> None:
        target = _target(**{name: given.pop(name) for name in options})  # type: ignore[arg-type]
        command(target=target, **given)

    parameters = [*own, *options.values()]
    connected.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    connected.__annotations__ = {one.name: one.annotation for one in parameters}
    return connected


def _target(
    server: ServerOption = DEFAULT_SERVER,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_client_cert: TlsClientCertOption = None,
    tls_client_key: TlsClientKeyOption = None,
    auth_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TASKLOGS_TOKEN_FILE",
            metavar="FILE",
            show_default=False,
            help=f"A file with your token, if the server requires one. Or set {_TOKEN_VARIABLE}.",
        ),
    ] = None,
) -> Target:
    chosen = chosen_tls(tls, tls_ca, tls_client_cert, tls_client_key)
    token = _token(auth_token_file)
    if token is not None:
        warn_of_plain_text(server, chosen)
    return Target(server, timeout, chosen, token)


def chosen_tls(
    tls: bool, ca: Path | None, certificate: Path | None, key: Path | None
) -> Tls | None:
    """Return the TLS settings; any of the options turns TLS on. Raises CommandFailed."""
    if not tls and ca is None and certificate is None and key is None:
        return None
    from tasklogs.connection.tls import Tls, UnusableTls

    try:
        chosen = Tls(ca=ca, certificate=certificate, key=key)
        chosen.credentials()  # a bad file must fail here, not at the first call
    except UnusableTls as error:
        raise CommandFailed(f"TLS: {error}") from None
    return chosen


def warn_of_plain_text(server: str, tls: Tls | None) -> None:
    """Warn that anyone on the network path can read the token."""
    from tasklogs.connection.loopback import is_loopback_address

    if tls is None and not is_loopback_address(server):
        print_notice(f"the token is sent to {server} in plain text: use --tls or --tls-ca FILE")


def _token(file: Path | None) -> Callable[[], str] | None:
    if file is not None:
        first = read_token(file)  # a bad file must fail here, not at the first call
        if not first:
            raise CommandFailed(f"{file} has no token")
        return (lambda: first) if file == STANDARD_INPUT else (lambda: read_token(file))
    token = os.environ.get(_TOKEN_VARIABLE, "").strip()
    if not token:
        return None
    checked_token(token, _TOKEN_VARIABLE)
    return lambda: token
