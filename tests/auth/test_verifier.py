"""Tokens: which are accepted, and which are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tasklogs_server.auth import verifier as tokens_checked
from tasklogs_server.auth.keys import Keys, parse_jwks, shared_secret
from tasklogs_server.auth.verifier import Expected, FixedKeys, TokenVerifier
from tasklogs_server.domain.errors import KeysUnavailable, Unauthenticated
from tests.support.fixtures.issuer import AUDIENCE, ISSUER, SigningKey, claims, jwks, new_key

LEEWAY = timedelta(seconds=10)
EXPECTED = Expected(ISSUER, AUDIENCE, LEEWAY, admins=("root",))
KEY = new_key("one")
RSA = new_key("rsa", "RS256")
SECRET = b"0123456789abcdef0123456789abcdef"


def verifier(keys: Keys | None, now: Callable[[], datetime] | None = None) -> TokenVerifier:
    return TokenVerifier(FixedKeys(keys), EXPECTED, clock=now or (lambda: datetime.now(UTC)))


def verifier_of(*keys: SigningKey) -> TokenVerifier:
    return verifier(parse_jwks(jwks(*keys)))


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: dict[str, Any], payload: object, sign: Callable[[bytes], bytes]) -> str:
    """A token that a correct library would not create."""
    signed = f"{encoded(header)}.{encoded(payload)}"
    return f"{signed}.{encoded(sign(signed.encode()))}"


def plain(**more: Any) -> dict[str, Any]:
    """Claims, encoded as JSON."""
    return {
        name: int(value.timestamp()) if isinstance(value, datetime) else value
        for name, value in claims(**more).items()
    }


def hmac_with(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.digest(secret, signed, hashlib.sha256)


async def refusal(token: str, *keys: SigningKey) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await verifier_of(*(keys or (KEY,))).user(token)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"])
async def test_a_valid_token_names_its_user(algorithm: str) -> None:
    key = new_key("mine", algorithm)
    user = await verifier_of(KEY, key).user(key.sign(claims("alice")))
    assert (user.subject, user.is_admin) == ("alice", False)
    assert user.expires_at is not None
    left = user.expires_at - datetime.now(UTC)
    assert timedelta(seconds=500) < left <= timedelta(seconds=600) + LEEWAY


@pytest.mark.parametrize(
    ("scope", "is_admin"),
    [
        ("tasklogs:admin", True),
        ("openid tasklogs:admin email", True),
        (["email", "tasklogs:admin"], True),
        ("tasklogs:administrator", False),
        ("email\ttasklogs:admin", False),
        ("email\u00a0tasklogs:admin", False),
        (["email tasklogs:admin"], False),
        ("", False),
        ([["tasklogs:admin"]], False),
        ({"tasklogs:admin": True}, False),
        (7, False),
    ],
)
async def test_only_the_scope_makes_an_admin(scope: object, is_admin: bool) -> None:
    user = await verifier_of(KEY).user(KEY.sign(claims(scope=scope)))
    assert user.is_admin is is_admin


async def test_a_listed_subject_is_an_admin() -> None:
    assert (await verifier_of(KEY).user(KEY.sign(claims("root")))).is_admin


async def test_one_of_several_audiences_is_enough() -> None:
    await verifier_of(KEY).user(KEY.sign(claims(aud=["other", AUDIENCE])))


async def test_clocks_may_differ_by_the_leeway() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=5)
    await verifier_of(KEY).user(KEY.sign(claims(expires_in=-5)))
    await verifier_of(KEY).user(KEY.sign(claims(nbf=soon)))


async def test_an_expired_token_is_refused() -> None:
    assert await refusal(KEY.sign(claims(expires_in=-60))) == "not authenticated: token expired"


def public_pem() -> bytes:
    pem: bytes = RSA.private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    return pem


REFUSED: dict[str, Callable[[], str]] = {
    "not yet valid": lambda: KEY.sign(claims(nbf=datetime.now(UTC) + timedelta(minutes=5))),
    "for another audience": lambda: KEY.sign(claims(aud="other")),
    "of another issuer": lambda: KEY.sign(claims(iss=f"{ISSUER}/")),
    "alg none": lambda: jwt.encode(claims(), "", algorithm="none", headers={"kid": "one"}),
    "alg none in other letters": lambda: by_hand(
        {"alg": "nOnE", "kid": "one"}, plain(), lambda _: b""
    ),
    "no signature": lambda: KEY.sign(claims()).rpartition(".")[0] + ".",
    "HS256 with the public key in PEM": lambda: by_hand(
        {"alg": "HS256", "kid": "rsa"}, plain(), hmac_with(public_pem())
    ),
    "HS256 with the public key in DER": lambda: by_hand(
        {"alg": "HS256", "kid": "rsa"},
        plain(),
        hmac_with(
            RSA.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ),
    ),
    "HS256 with the key's JSON": lambda: by_hand(
        {"alg": "HS256", "kid": "one"}, plain(), hmac_with(json.dumps(KEY.jwk).encode())
    ),
    "an unknown kid": lambda: KEY.sign(claims(), kid="two"),
    "no kid where there are several keys": lambda: KEY.sign(claims(), kid=None),
    "another key's kid": lambda: KEY.sign(claims(), kid="rsa"),
    "an unknown key under a known kid": lambda: new_key("one").sign(claims()),
    "a key that it brings itself": lambda: (lambda own: own.sign(claims(), jwk=own.jwk))(
        new_key("one")
    ),
    "other claims than were signed": lambda: (
        lambda parts: f"{parts[0]}.{encoded(plain(subject='root'))}.{parts[2]}"
    )(KEY.sign(claims()).split(".")),
    "an extension that must be understood": lambda: KEY.sign(claims(), crit=["x"], x=1),
    "no expiry": lambda: KEY.sign(claims(exp=None)),
    "no subject": lambda: KEY.sign(claims(sub=None)),
    "no audience": lambda: KEY.sign(claims(aud=None)),
    "no issuer": lambda: KEY.sign(claims(iss=None)),
    "an empty subject": lambda: KEY.sign(claims("")),
    "a subject of two lines": lambda: KEY.sign(claims("a\nb")),
    "a subject that is too long": lambda: KEY.sign(claims("a" * 256)),
    "an agent's token": lambda: f"tla_{'0' * 32}_secret",
    "nothing": lambda: "",
    "two dots": lambda: "..",
    "characters that no token has": lambda: "é\ud800.\0.\U0001f600",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_token_is_refused_without_a_reason_with(what: str) -> None:
    said = await refusal(REFUSED[what](), KEY, RSA)
    assert said == "not authenticated: token invalid"


@pytest.mark.parametrize("exp", ["Infinity", "-Infinity", "NaN", "1e400", '"soon"', "[]", "null"])
async def test_an_expiry_that_is_not_a_number_is_refused(exp: str) -> None:
    claims_text = json.dumps(plain() | {"exp": 0}).replace('"exp": 0', f'"exp": {exp}')
    token = jwt.PyJWS().encode(
        claims_text.encode(), KEY.private, algorithm="ES256", headers={"kid": "one"}
    )
    assert "token" in await refusal(token)


async def test_an_expiry_past_the_calendar_is_accepted() -> None:
    user = await verifier_of(KEY).user(KEY.sign(claims(exp=10**15)))
    assert user.expires_at is not None
    assert user.expires_at > datetime.now(UTC) + timedelta(days=365_000)


async def test_a_remembered_token_expires() -> None:
    now = datetime.now(UTC)
    checks = verifier(parse_jwks(jwks(KEY)), lambda: now)
    token = KEY.sign(claims(expires_in=60))
    await checks.user(token)
    now += timedelta(seconds=60) + LEEWAY
    with pytest.raises(Unauthenticated, match="expired"):
        await checks.user(token)


async def test_the_remembered_tokens_have_a_limit_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = verifier_of(KEY)
    tokens = [KEY.sign(claims(f"user{number}", padding="x" * 9000)) for number in range(5)]
    monkeypatch.setattr(tokens_checked, "_REMEMBERED_BYTES", 3 * len(tokens[0]))
    for token in [*tokens, tokens[-1]]:
        await checks.user(token)

    assert list(checks._checked) == tokens[2:]
    assert checks._checked_bytes == sum(len(token) for token in tokens[2:])


async def test_the_tokens_of_a_withdrawn_key_are_refused_also_remembered_ones() -> None:
    source = FixedKeys(parse_jwks(jwks(KEY)))
    checks = TokenVerifier(source, EXPECTED, clock=lambda: datetime.now(UTC))
    token = KEY.sign(claims())
    await checks.user(token)
    source.keys = parse_jwks(jwks(RSA))
    with pytest.raises(Unauthenticated, match="invalid"):
        await checks.user(token)


async def test_before_the_first_key_a_token_is_not_called_invalid() -> None:
    with pytest.raises(KeysUnavailable):
        await verifier(None).user(KEY.sign(claims()))


async def test_a_shared_secret_accepts_tokens_signed_with_it_and_no_others() -> None:
    checks = verifier(shared_secret(SECRET))
    token = jwt.encode(claims(), SECRET, algorithm="HS256", headers={"kid": "any"})
    assert (await checks.user(token)).subject == "alice"
    for bad in (
        jwt.encode(claims(), SECRET[::-1], algorithm="HS256"),
        jwt.encode(claims(), "", algorithm="none"),
        KEY.sign(claims()),
    ):
        with pytest.raises(Unauthenticated):
            await checks.user(bad)


@given(st.one_of(st.text(), st.lists(st.binary(max_size=60), min_size=3, max_size=3)))
async def test_malformed_tokens_are_refused_and_raise_nothing_else(
    garbage: str | list[bytes],
) -> None:
    token = garbage if isinstance(garbage, str) else ".".join(encoded(part) for part in garbage)
    assert "token invalid" in await refusal(token)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "x"]), _JSON),
    payload=st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat"]), _JSON),
)
async def test_strange_claims_of_an_issuer_raise_nothing_else(
    header: dict[str, Any], payload: dict[str, Any]
) -> None:
    def sign(signed: bytes) -> bytes:
        raw: bytes = jwt.get_algorithm_by_name("ES256").sign(signed, KEY.private)
        return raw

    token = by_hand({"alg": "ES256", "kid": "one"} | header, plain() | payload, sign)
    with suppress(Unauthenticated):
        await verifier_of(KEY).user(token)
