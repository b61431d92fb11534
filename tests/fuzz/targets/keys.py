"""JWKS documents in files, as an issuer's operator may write them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tasklogs_server.auth.key_ring import KeyRing
from tasklogs_server.auth.key_sources import File
from tasklogs_server.auth.keys import Key, Keys, NoKeys, UnusableKeys, parse_jwks
from tasklogs_server.auth.verifier import Expected, FixedKeys, TokenVerifier
from tasklogs_server.domain.errors import Unauthenticated
from tests.fuzz.loop import Loop
from tests.fuzz.target import Target
from tests.fuzz.targets.issuer import AUDIENCE, ISSUER, FuzzedIssuer, claims, encoded

# 2,048 bits, and a modulus that is only valid arithmetic: nobody has its private key.
_MODULUS = encoded(((1 << 2047) + 0x10001).to_bytes(256, "big"))
_FORMS: Mapping[str, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


class KeyDocuments(Target):
    """Documents that are refused for one documented reason, or have usable public keys.

    The keys are written as JWKs again and read back as the same keys. Each key refuses a token that
    none of them signed.
    """

    name: ClassVar[str] = "keys"
    max_bytes: ClassVar[int] = 8192
    tokens: ClassVar[Sequence[bytes]] = (
        *(b'"keys":[', b'"kty":"RSA"', b'"kty":"EC"', b'"kty":"OKP"', b'"kty":"oct"', b'"use":'),
        *(b'"crv":"P-256"', b'"crv":"P-521"', b'"crv":"secp256k1"', b'"crv":"Ed448"', b'"alg":'),
        *(b'"key_ops":["verify"]', b'"kid":', b'"n":', b'"e":"AQAB"', b'"x":', b'"y":', b'"d":'),
        *(b'"RS256"', b'"ES256"', b'"Ed25519"', b'"x5c":[', b'{"keys":[{', b"}]}", b"null"),
    )

    def seeds(self) -> Iterable[bytes]:
        issuer = FuzzedIssuer.make()
        yield issuer.jwks
        entries: list[dict[str, Any]] = [
            dict(issuer.ed_jwk),
            dict(issuer.ec_jwk),
            {"kty": "RSA", "n": _MODULUS, "e": "AQAB", "kid": "rsa", "alg": "RS256"},
            {"kty": "RSA", "n": encoded(bytes([255] * 64)), "e": "AQAB"},
            {"kty": "RSA", "n": _MODULUS, "e": encoded(bytes([255] * 256)), "d": "AQAB"},
            {"kty": "oct", "k": encoded(b"a secret")},
            {"kty": "OKP", "crv": "X25519", "x": encoded(bytes(32))},
            {"kty": "OKP", "crv": "Ed448", "x": encoded(bytes(57))},
            {"kty": "EC", "crv": "P-521", "x": encoded(bytes(66)), "y": encoded(bytes(66))},
            dict(issuer.ed_jwk) | {"use": "enc"},
            dict(issuer.ed_jwk) | {"key_ops": ["verify"], "alg": "EdDSA", "kid": 7},
            dict(issuer.ec_jwk) | {"crv": "secp256k1"},
        ]
        for entry in entries:
            yield json.dumps({"keys": [entry]}).encode()
        yield json.dumps({"keys": entries}).encode()
        yield json.dumps({"keys": entries[:2]}).encode("utf-16")
        yield b"[" * 4000
        yield b'{"keys":' * 1000
        yield b'{"keys":[%s]}' % (b"9" * 5000)
        yield b'\xef\xbb\xbf{"keys":[]}'

    def __init__(self) -> None:
        self._loop = Loop()
        issuer = FuzzedIssuer.make()
        self._before = issuer.jwks
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-keys-")
        self._path = Path(self._directory.name) / "jwks.json"
        self._others = [
            f"{encoded(json.dumps({'alg': algorithm}).encode())}"
            f".{encoded(json.dumps(claims()).encode())}.{encoded(bytes(64))}"
            for algorithm in ("RS256", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA")
        ]

    def close(self) -> None:
        self._directory.cleanup()
        self._loop.close()

    def run(self, data: bytes) -> None:
        keys: Keys | None = None
        try:
            keys = parse_jwks(data)
        except UnusableKeys as refused:
            reason = str(refused)
            assert reason
            assert "\n" not in reason
            if isinstance(refused, NoKeys):
                keys = Keys(())
        if keys is not None and keys.keys:
            self._check(keys)
        self._check_ring(data, keys)

    def _check(self, keys: Keys) -> None:
        again = parse_jwks(json.dumps({"keys": [_as_jwk(key) for key in keys.keys]}).encode())
        assert [_identity(key) for key in again.keys] == [_identity(key) for key in keys.keys]
        for key in keys.keys:
            assert key.algorithms
            assert keys.find(key.kid) is not None or key.kid is None
            self._opens_nothing(key)

    def _opens_nothing(self, key: Key) -> None:
        expected = Expected(ISSUER, AUDIENCE, timedelta(0))
        verifier = TokenVerifier(FixedKeys(Keys([key])), expected, clock=_no_clock)
        for token in self._others:
            try:
                self._loop.run(verifier.user(token))
            except Unauthenticated:
                continue
            raise AssertionError("a key accepted a token that it had not signed")

    def _check_ring(self, data: bytes, keys: Keys | None) -> None:
        """An unreadable document keeps the old keys. Any other replaces them, even with none."""
        ring = KeyRing(File(self._path), every=timedelta(1), at_most_every=timedelta(0))
        other_size = b" " * (len(data) == len(self._before))  # or it could look like the same file
        self._path.write_bytes(self._before + other_size)
        assert self._loop.run(ring.read()) is None
        before = ring.keys
        self._path.write_bytes(data)
        failure = self._loop.run(ring.read())
        assert (failure is None) == (keys is not None and bool(keys.keys))
        assert "\n" not in (failure or "")
        if keys is None:
            assert ring.keys is before
        else:
            assert ring.keys is not None
            assert [_identity(one) for one in ring.keys.keys] == [
                _identity(one) for one in keys.keys
            ]


def _no_clock() -> Any:
    raise AssertionError("nothing may be accepted")


def _as_jwk(key: Key) -> dict[str, Any]:
    kind = "RSA" if isinstance(key.material, rsa.RSAPublicKey) else None
    for name, form in _FORMS.items():
        if kind in (None, name):
            try:
                jwk = dict(form.to_jwk(key.material, as_dict=True))
            except Exception:
                continue
            return jwk | {"use": "sig"} | ({} if key.kid is None else {"kid": key.kid})
    raise AssertionError(f"{type(key.material).__name__} is not a public key")


def _identity(key: Key) -> tuple[bytes, str | None]:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.material.public_bytes(*form), key.kid
