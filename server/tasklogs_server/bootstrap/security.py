"""Authentication and TLS, as the settings ask for them."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from tasklogs.connection.loopback import is_loopback
from tasklogs_server.auth import development
from tasklogs_server.auth.key_ring import KeyRing
from tasklogs_server.auth.key_sources import File, Source, Url
from tasklogs_server.auth.keys import UnusableKeys, shared_secret
from tasklogs_server.auth.server_certificate import BadCertificate, CertificateFiles
from tasklogs_server.auth.verifier import Expected, FixedKeys, KeySource, TokenVerifier
from tasklogs_server.domain.admin_subjects import parse_admin_subjects
from tasklogs_server.domain.caller import Agent
from tasklogs_server.middleware.authentication import Users, by_certificate, by_token, local
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.tasks.agent_tokens import AgentTokens

# To find that a file is unchanged costs one `fstat`.
_FILE_EVERY = timedelta(seconds=2)
_FILE_AT_MOST_EVERY = timedelta(seconds=0.2)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Security:
    """How callers are authenticated, and the certificate that the server shows."""

    certificate: CertificateFiles | None
    """None: no TLS."""
    key_ring: KeyRing | None
    """The composition root runs it. None: there are no keys, or they never change."""
    _auth: str
    _keys: KeySource | None
    _expected: Expected

    def users(
        self,
        agents: AgentTokens,
        count: Callable[[Agent], None],
        *,
        clock: Callable[[], datetime],
    ) -> Users:
        """Return what finds the user of a call. `count`: see `by_token`."""
        if self._auth == "mtls":
            return by_certificate(self._expected.admins)
        if self._keys is None:
            return local
        verifier = TokenVerifier(self._keys, self._expected, clock=clock)
        return by_token(verifier, agents, count)


async def prepare(settings: ServerSettings) -> Security:
    """Read certificates and keys. Raises StartupError if they or the settings are unusable."""
    certificate = _certificate(settings)
    _check_modes(settings)
    ring: KeyRing | None = None
    keys: KeySource | None = None
    if settings.jwt_shared_secret_file is not None:
        keys = _shared_secret(settings.jwt_shared_secret_file)
    elif settings.auth in ("jwt", "dev"):
        keys = ring = await _key_ring(settings)
    return Security(certificate, ring, settings.auth, keys, _expected(settings))


def _certificate(settings: ServerSettings) -> CertificateFiles | None:
    chain, key = settings.tls_cert, settings.tls_key
    if chain is None or key is None:
        if chain is not None or key is not None:
            raise StartupError("--tls-cert and --tls-key need each other")
        if settings.tls_client_ca is not None:
            raise StartupError("--tls-client-ca needs --tls-cert and --tls-key")
        return None
    files = CertificateFiles(chain, key, settings.tls_client_ca)
    try:
        files.load()
    except BadCertificate as error:
        raise StartupError(f"TLS: {error}") from error
    if files.key_is_readable_by_others:
        _log_exposed(key)
    return files


def _check_modes(settings: ServerSettings) -> None:
    sources = {
        "--jwks-file": settings.jwks_file,
        "--jwks-url": settings.jwks_url,
        "TASKLOGS_JWT_SHARED_SECRET_FILE": settings.jwt_shared_secret_file,
    }
    given = [name for name, value in sources.items() if value is not None]
    if settings.auth == "mtls" and settings.tls_client_ca is None:
        raise StartupError(
            "--auth mtls needs --tls-client-ca FILE: the authorities that sign client certificates"
        )
    if settings.auth != "jwt":
        if given:
            # The operator set keys and expects authentication: do not serve without it.
            raise StartupError(f"{given[0]} needs --auth jwt")
        return
    if len(given) != 1:
        raise StartupError(f"--auth jwt needs one of {', '.join(sources)}")
    if not settings.jwt_issuer or not settings.jwt_audience:
        raise StartupError("--auth jwt needs --jwt-issuer and --jwt-audience: both are checked")
    if settings.jwks_url is not None and not _is_trustworthy(settings.jwks_url):
        raise StartupError(
            "--jwks-url must be https: an attacker who can change the keys can make tokens"
        )


def _is_trustworthy(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        host = parsed.hostname or ""
    except ValueError:
        return False
    if parsed.scheme == "https":
        return bool(host)
    return parsed.scheme == "http" and is_loopback(host)


def _shared_secret(path: Path) -> FixedKeys:
    try:
        keys = FixedKeys(shared_secret(path.read_bytes().strip()))
        _warn_of_readers(path)
        return keys
    except OSError as error:
        raise StartupError(f"cannot read the shared secret {path}: {error.strerror}") from error
    except UnusableKeys as error:
        raise StartupError(f"{path}: {error}") from error


async def _key_ring(settings: ServerSettings) -> KeyRing:
    source: Source
    if settings.jwks_url is not None:
        source = Url(settings.jwks_url)
        ring = KeyRing(source, every=settings.jwks_refresh, at_most_every=settings.jwks_unknown_key)
    else:
        source = File(settings.jwks_file or _development_key(settings))
        ring = KeyRing(source, every=_FILE_EVERY, at_most_every=_FILE_AT_MOST_EVERY)
    failure = await ring.read()
    if failure is not None and settings.jwks_url is None:
        raise StartupError(f"cannot load keys from {source}: {failure}")
    if failure is not None:
        # The issuer may be unreachable for a moment. The key ring asks again.
        _log.warning("keys.missing", source=str(source), reason=failure)
    return ring


def _development_key(settings: ServerSettings) -> Path:
    path = development.key_file_in(settings.data_dir)
    try:
        development.ensure_key(path)
        _warn_of_readers(path)
    except OSError as error:
        raise StartupError(f"cannot make {path}: {error.strerror}") from error
    return path


def _warn_of_readers(path: Path) -> None:
    # A user who can read this file can make tokens of any subject.
    if path.stat().st_mode & stat.S_IROTH:
        _log_exposed(path)


def _log_exposed(path: Path) -> None:
    _log.warning("secret.exposed", path=str(path), fix=f"chmod o-r {path}")


def _expected(settings: ServerSettings) -> Expected:
    is_dev = settings.auth == "dev"
    return Expected(
        development.ISSUER if is_dev else settings.jwt_issuer or "",
        development.AUDIENCE if is_dev else settings.jwt_audience or "",
        settings.jwt_leeway,
        parse_admin_subjects(settings.admin_subjects),
    )
