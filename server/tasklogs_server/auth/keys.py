"""The keys of a JWKS document (RFC 7517) that tokens may be checked with."""

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

# What the key is decides how it may be used, never what the token says: else a public key would
# pass for an HMAC secret.
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
    """A document holds no key to check tokens with. `str()` says why, in one line."""


class NoKeys(UnusableKeys):
    """A document is a whole JWKS, and none of its keys is one to check tokens with."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the algorithms that it may be used with."""

    material: Any = field(repr=False)
    algorithms: Sequence[str]
    kid: str | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one document. `skipped` says what in it was not usable, and why."""

    keys: Sequence[Key]
    skipped: Sequence[str] = ()

    def find(self, kid: str | None) -> Key | None:
        """Return the key of a token: the one it names, or the only one there is.

        A token that names none, or a key that has no name, fit where nothing can be confused.
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
        raise UnusableKeys('it is no JWKS: an object with a list "keys"')
    if len(entries) > _MAX_KEYS:
        # Each is tried, while calls wait, and what is wrong with it is told.
        raise UnusableKeys(f"it holds more than {_MAX_KEYS} keys")
    keys: list[Key] = []
    skipped: list[str] = []
    for place, entry in enumerate(entries):
        try:
            keys.append(_key(entry))
        except UnusableKeys as error:
            skipped.append(f"key {place}: {error}")
    if not keys:
        raise NoKeys("; ".join(skipped) or "it holds no keys")
    return Keys(keys, skipped)


def _key(entry: object) -> Key:
    if not isinstance(entry, dict):
        raise UnusableKeys("is no object")
    if str(entry.get("kty")) not in _PUBLIC_MEMBERS:
        # An "oct" key would be a secret, in a place that is public by its nature.
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
        raise UnusableKeys("alg or crv is not one that is served")
    return algorithms


def _material(entry: Mapping[str, Any]) -> Any:
    # The public members alone: whoever publishes a private key must not make us hold it.
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
    except Exception:  # members that are missing, no numbers, or off the curve
        raise UnusableKeys("its members make no key") from None
    if isinstance(material, RSAPublicKey) and material.key_size < _MIN_RSA_BITS:
        raise UnusableKeys(f"RSA with fewer than {_MIN_RSA_BITS} bits")
    return material
