"""Tokens for development, without an issuer: a key pair in a file signs them."""

from __future__ import annotations

import base64
import json
import os
import secrets
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tasklogs_server.auth.verifier import ADMIN_SCOPE
from tasklogs_server.domain.names import owner_violations

# No real issuer has these names.
ISSUER = "tasklogs-development"
AUDIENCE = "tasklogs-development"
_FILE_NAME = "development-key.json"


class NoDevelopmentKey(Exception):
    """There is no development key to sign with. `str()` says what to do."""


class InvalidSubject(Exception):
    """A server would refuse a token with this subject. `str()` says why."""


def key_file_in(data_dir: Path) -> Path:
    """Return the path of the key pair."""
    return data_dir / _FILE_NAME


def ensure_key(path: Path) -> None:
    """Create the key pair, readable by this user alone, if there is none. Raises OSError.

    The file is a JWKS document. `mint` reads its private member; servers do not.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            json.dump({"keys": [_new_key()]}, file)
        with suppress(FileExistsError):  # another server was faster: use its key
            os.link(draft, path)
    finally:
        Path(draft).unlink()


def mint(path: Path, *, subject: str, is_admin: bool, lifetime: timedelta) -> str:
    """Return a token that a server with this key file accepts.

    Raises InvalidSubject and NoDevelopmentKey.
    """
    # The check of the verifier.
    for violation in owner_violations(subject, "subject"):
        raise InvalidSubject(violation.description)
    try:
        [key] = json.loads(path.read_bytes())["keys"]
        material = jwt.PyJWK(key, algorithm="EdDSA").key
        if not isinstance(material, Ed25519PrivateKey):
            raise ValueError
    except OSError as error:
        raise NoDevelopmentKey(
            f"cannot read {path}: {error.strerror};"
            " a server that runs with `--auth dev` makes it in its data directory"
        ) from error
    except (jwt.PyJWTError, ValueError, KeyError, TypeError) as error:
        raise NoDevelopmentKey(f"{path} holds no development key") from error
    now = datetime.now(UTC)
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "iat": now,
        "exp": now + lifetime,
    }
    if is_admin:
        claims["scope"] = ADMIN_SCOPE
    return jwt.encode(claims, material, algorithm="EdDSA", headers={"kid": key["kid"]})


def _new_key() -> dict[str, str]:
    private = Ed25519PrivateKey.generate()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "kid": secrets.token_urlsafe(8),
        "x": _encoded(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
        "d": _encoded(private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())),
    }


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
