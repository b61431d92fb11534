"""Authentication and TLS: which settings are refused, and which files are warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from tasklogs_server.bootstrap.security import prepare
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tests.support.fixtures.certificates import Authority, Pair
from tests.support.fixtures.issuer import AUDIENCE, ISSUER, new_key, publish


def settings_of(**settings: Any) -> ServerSettings:
    return ServerSettings.model_validate(settings)


async def refusal(**settings: Any) -> str:
    with pytest.raises(StartupError) as caught:
        await prepare(settings_of(**settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    publish(path, new_key("one"))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Authority(tmp_path).issue("server")


async def test_contradictory_settings_are_refused(jwks: Path, pair: Pair) -> None:
    whole = {"auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwks_file": jwks}
    await prepare(settings_of(**whole))
    assert "--jwks-file" in await refusal(**whole | {"jwks_file": None})
    assert "--jwt-issuer" in await refusal(**whole | {"jwt_issuer": None})
    assert "--jwt-audience" in await refusal(**whole | {"jwt_audience": ""})
    assert "one of" in await refusal(**whole | {"jwks_url": "https://issuer.example/keys"})
    assert "--auth jwt" in await refusal(jwks_file=jwks)
    assert "--auth jwt" in await refusal(auth="dev", jwks_file=jwks)
    assert "--tls-key" in await refusal(tls_cert=pair.certificate)
    assert "--tls-client-ca" in await refusal(
        auth="mtls", tls_cert=pair.certificate, tls_key=pair.key
    )
    assert "--tls-cert" in await refusal(tls_client_ca=pair.certificate)
    assert str(pair.key) in await refusal(tls_cert=pair.key, tls_key=pair.key)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://127.0.0.1.issuer.example/keys",
        "http://localhost@issuer.example/keys",
        "ftp://issuer.example/keys",
        "file:///keys",
        "issuer.example",
        "http://[",
    ],
)
async def test_a_jwks_url_must_be_https_or_on_loopback(url: str) -> None:
    said = await refusal(auth="jwt", jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwks_url=url)
    assert "https" in said


async def test_a_jwks_file_must_be_usable_at_the_start(jwks: Path) -> None:
    settings = {"auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwks_file": jwks}
    jwks.write_bytes(b"{}")
    assert str(jwks) in await refusal(**settings)
    jwks.unlink()
    assert str(jwks) in await refusal(**settings)


async def test_a_shared_secret_is_a_file_with_at_least_32_bytes(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    settings = {
        "auth": "jwt",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_shared_secret_file": secret,
    }
    assert str(secret) in await refusal(**settings)
    secret.write_text("password\n")
    assert "32 bytes" in await refusal(**settings)
    secret.write_text("x" * 32 + "\n")
    await prepare(settings_of(**settings))


def test_settings_are_printed_without_passwords() -> None:
    url = "postgresql://user:secret@localhost/tasklogs"
    settings = settings_of(database_url=url, jwks_url="https://user:secret@issuer.example/keys")
    assert settings.database_url == url
    assert "secret@" not in f"{settings!r} {settings}"


@pytest.mark.parametrize("name", ["jwks_refresh", "jwks_unknown_key"])
def test_an_issuer_is_asked_once_a_second_at_most(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        settings_of(**{name: 0})


async def test_a_key_that_others_can_read_causes_a_warning(pair: Pair) -> None:
    pair.key.chmod(0o604)
    with capture_logs() as logged:
        await prepare(settings_of(tls_cert=pair.certificate, tls_key=pair.key))
    assert [(one["event"], one["log_level"]) for one in logged] == [("secret.exposed", "warning")]


async def test_a_secret_that_others_can_read_causes_a_warning(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 32)
    secret.chmod(0o604)
    whole = {"auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    data_dir = tmp_path / "data"
    await prepare(settings_of(auth="dev", data_dir=data_dir))
    (data_dir / "development-key.json").chmod(0o604)
    with capture_logs() as logged:
        await prepare(settings_of(jwt_shared_secret_file=secret, **whole))
        await prepare(settings_of(auth="dev", data_dir=data_dir))
    warned = [one["path"] for one in logged if one["event"] == "secret.exposed"]
    assert warned == [str(secret), str(data_dir / "development-key.json")]
