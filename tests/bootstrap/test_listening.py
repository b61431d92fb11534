"""Where the server may listen: beyond loopback only with TLS and authentication."""

from __future__ import annotations

from typing import Any

import pytest

from tasklogs_server.bootstrap.listening import listen_address
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings

ANYWHERE = "0.0.0.0:50051"
TLS = {"tls_cert": "/c.pem", "tls_key": "/k.pem"}
JWT = {"auth": "jwt"}


def settings_of(**settings: Any) -> ServerSettings:
    return ServerSettings.model_validate(settings)


@pytest.mark.parametrize("listen", [ANYWHERE, "[::]:50051", "192.0.2.1:50051", "example.com:1"])
@pytest.mark.parametrize(
    ("settings", "missing", "there"),
    [
        ({}, ("TLS (--tls-cert FILE --tls-key FILE)", "--auth jwt or --auth mtls"), ()),
        (TLS, ("--auth jwt",), ("--tls-cert",)),
        (JWT, ("--tls-cert",), ("--auth jwt",)),
        (TLS | {"auth": "dev"}, ("--auth jwt", "--auth dev does not count"), ("--tls-cert",)),
    ],
)
def test_beyond_loopback_one_line_names_what_is_missing(
    listen: str, settings: dict[str, Any], missing: tuple[str, ...], there: tuple[str, ...]
) -> None:
    with pytest.raises(StartupError) as caught:
        listen_address(settings_of(listen=listen, **settings))
    said = str(caught.value)
    assert listen in said
    assert "--insecure" in said
    assert "\n" not in said
    assert all(one in said for one in missing)
    assert not any(one in said for one in there)


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": ANYWHERE, "insecure": True},
        {"listen": ANYWHERE} | TLS | JWT,
        {"listen": ANYWHERE, "auth": "mtls"} | TLS,
        {"listen": "127.0.0.1:50051"},
        {"listen": "[::1]:50051"},
        {"listen": "localhost:50051"},
        {"listen": "127.0.0.1:50051"} | JWT,
    ],
)
def test_a_safe_address_or_an_explicit_insecure_is_accepted(settings: dict[str, Any]) -> None:
    assert listen_address(settings_of(**settings))[1] == 50051
