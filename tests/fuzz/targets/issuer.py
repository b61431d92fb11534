"""Keys that are the same in every run, and what they signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://issuer.example"
AUDIENCE = "tasklogs"
IN_THE_YEAR_2100 = 4_102_444_800
LONG_AGO = 1_000_000_000

Sign = Callable[[bytes], bytes]


def encoded(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class FuzzedIssuer:
    """An Ed25519 and an EC key. Each gives the same signature for the same bytes."""

    ed: ed25519.Ed25519PrivateKey
    ec: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> FuzzedIssuer:
        return cls(
            ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
            ec.derive_private_key(0x1234567890ABCDEF, ec.SECP256R1()),
        )

    @property
    def ed_jwk(self) -> Mapping[str, str]:
        raw = self.ed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": encoded(raw)}

    @property
    def ec_jwk(self) -> Mapping[str, str]:
        numbers = self.ec.public_key().public_numbers()
        x, y = (encoded(one.to_bytes(32, "big")) for one in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": x, "y": y}

    @property
    def jwks(self) -> bytes:
        return json.dumps({"keys": [self.ed_jwk, self.ec_jwk]}).encode()

    @property
    def signers(self) -> Mapping[str, Sign]:
        """By algorithm: signed as the owner does, or by somebody who only has public keys."""
        pem = self.ed.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        raw = self.ed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {
            "EdDSA": self.ed.sign,
            "ES256": self._ecdsa,
            "none": lambda _: b"",
            "HS256": lambda signed: hmac.digest(pem, signed, hashlib.sha256),
            "HS256 raw": lambda signed: hmac.digest(raw, signed, hashlib.sha256),
        }

    def _ecdsa(self, signed: bytes) -> bytes:
        der = self.ec.sign(signed, ec.ECDSA(SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token(header: bytes, payload: bytes, sign: Sign) -> str:
    """Return a token of any header and payload, signed by `sign`."""
    signed = f"{encoded(header)}.{encoded(payload)}"
    return f"{signed}.{encoded(sign(signed.encode()))}"


def claims(**more: Any) -> dict[str, Any]:
    """Return the claims of a valid token in order, without those that are None in `more`."""
    whole = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "iat": LONG_AGO,
        "exp": IN_THE_YEAR_2100,
    } | more
    return {name: value for name, value in whole.items() if value is not None}
