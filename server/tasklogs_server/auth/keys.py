"""The keys of a JWKS document (RFC 7517) that can check tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

MIN_SECRET_BYTES = 32
_MIN_RSA_BITS = 2048
_MAX_KEYS = 100

# The type of the key decides its algorithms, never the token. If the token decided, an attacker
# could sign with HMAC and use the public key as the secret.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE: Mapping[str, Sequence[str]] = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "secp256k1": ("ES256K",),
    "Ed25519": ("EdDSA",),
    "Ed448": ("EdDSA",),
}
_HMAC = ("HS256", "HS384", "HS512")
_PUBLIC_MEMBERS: Mapping[str, Sequence[str]] = {
    "RSA": ("n", "e"),
    "EC": ("crv", "x", "y"),
    "OKP": ("crv", "x"),
}


class UnusableKeys(Exception):
    """A document has no key that can check tokens. `str()` says why, in one line."""


class NoKeys(UnusableKeys):
    """A document is a valid JWKS, and none of its keys can check tokens."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its algorithms."""

    material: Any = field(repr=False)
    algorithms: Sequence[str]
    kid: str | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one document. `skipped` says which entries are not used, and why."""

    keys: Sequence[Key]
    skipped: Sequence[str] = ()

    def find(self, kid: str | None) -> Key | None:
        """Return the key for a token that names `kid`, None if there is none.

        If the document has one key, it also serves a token without a `kid`, and a key without a
        `kid` serves every token.
        """
        only = self.keys[0] if len(self.keys) == 1 else None
        if only is not None and (kid is None or only.kid is None):
            return only
        return next((key for key in self.keys if kid is not None and key.kid == kid), None)


def shared_secret(secret: bytes) -> Keys:
    """Return a secret that issuer and server share, as the one key. Raises UnusableKeys."""
    if len(secret) < MIN_SECRET_BYTES:
        raise UnusableKeys(f"the shared secret has fewer than {MIN_SECRET_BYTES} bytes")
    return Keys([Key(secret, _HMAC)])


def parse_jwks(document: bytes) -> Keys:
    """Return the public keys for signatures in `document`. Raises UnusableKeys; NoKeys."""
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        raise UnusableKeys("it is not JSON") from None
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        raise UnusableKeys('it is not a JWKS, which is an object with a list "keys"')
    if len(entries) > _MAX_KEYS:
        # Calls wait while the keys are parsed, and the log names each unusable one.
        raise UnusableKeys(f"it holds more than {_MAX_KEYS} keys")
    keys: list[Key] = []
    skipped: list[str] = []
    for position, entry in enumerate(entries):
        try:
            keys.append(_key(entry))
        except UnusableKeys as error:
            skipped.append(f"key {position}: {error}")
    if not keys:
        raise NoKeys("; ".join(skipped) or "it holds no keys")
    return Keys(keys, skipped)


def _key(entry: object) -> Key:
    if not isinstance(entry, dict):
        raise UnusableKeys("is not an object")
    if str(entry.get("kty")) not in _PUBLIC_MEMBERS:
        # An "oct" key is a secret, and a JWKS is public.
        raise UnusableKeys("kty is not RSA, EC or OKP")
    if entry.get("use", "sig") != "sig":
        raise UnusableKeys("use is not sig")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKeys("key_ops lacks verify")
    algorithms = _algorithms(entry)
    kid = entry.get("kid")
    return Key(_material(entry), algorithms, kid if isinstance(kid, str) else None)


def _algorithms(entry: Mapping[str, Any]) -> Sequence[str]:
    possible = _RSA if entry["kty"] == "RSA" else _BY_CURVE.get(str(entry.get("crv")), ())
    named = entry.get("alg")
    if named == "Ed25519":  # RFC 9864's name for EdDSA with this curve
        named = "EdDSA"
    algorithms = [one for one in possible if named is None or one == named]
    if not algorithms:
        raise UnusableKeys("alg or crv is not supported")
    return algorithms


def _material(entry: Mapping[str, Any]) -> Any:
    # The public members alone: if an issuer publishes a private key, do not keep it.
    kind = entry["kty"]
    public = {"kty": kind} | {name: entry.get(name) for name in _PUBLIC_MEMBERS[kind]}
    try:
        match kind:
            case "RSA":
                material: Any = RSAAlgorithm.from_jwk(public)
            case "EC":
                material = ECAlgorithm.from_jwk(public)
            case _:
                material = OKPAlgorithm.from_jwk(public)
    except Exception:  # members are missing, are not numbers, or are not on the curve
        raise UnusableKeys("its members do not form a key") from None
    if isinstance(material, RSAPublicKey) and material.key_size < _MIN_RSA_BITS:
        raise UnusableKeys(f"RSA with fewer than {_MIN_RSA_BITS} bits")
    return material
