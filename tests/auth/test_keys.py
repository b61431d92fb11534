"""The keys of a JWKS document."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tasklogs_server.auth.keys import UnusableKeys, parse_jwks, shared_secret
from tests.support.fixtures.issuer import SigningKey, jwks, new_key

KEY = new_key("one")
RSA = new_key("rsa", "RS256")


def document(*entries: Any) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


def test_a_key_is_found_by_the_kid_that_a_token_names() -> None:
    keys = parse_jwks(jwks(KEY, RSA))
    found = keys.find("rsa")
    assert found is not None
    assert found.kid == "rsa"
    assert keys.find("two") is None
    assert keys.find(None) is None


def test_a_single_key_serves_tokens_without_a_kid_but_not_with_another_kid() -> None:
    keys = parse_jwks(jwks(KEY))
    assert keys.find(None) is not None
    assert keys.find("two") is None


def test_the_type_of_a_key_decides_its_algorithms() -> None:
    keys = parse_jwks(document(RSA.jwk, KEY.jwk, RSA.jwk | {"kid": "only", "alg": "PS256"}))
    by_kid = {key.kid: list(key.algorithms) for key in keys.keys}
    assert by_kid == {
        "rsa": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        "one": ["ES256"],
        "only": ["PS256"],
    }


WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)

UNUSABLE: dict[str, Any] = {
    "a secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "s"},
    "a secret's algorithm on a public key": RSA.jwk | {"alg": "HS256"},
    "another curve's algorithm": KEY.jwk | {"alg": "ES384"},
    "a key for encryption": RSA.jwk | {"use": "enc"},
    "a key for signing alone": RSA.jwk | {"key_ops": ["sign"]},
    "a weak key": SigningKey("weak", "RS256", WEAK).jwk,
    "a point off its curve": KEY.jwk | {"x": KEY.jwk["y"]},
    "no members": {"kty": "RSA"},
    "no object": 7,
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_unusable_key_is_skipped_with_a_reason(what: str) -> None:
    keys = parse_jwks(document(UNUSABLE[what], new_key("good").jwk))
    assert [key.kid for key in keys.keys] == ["good"]
    assert len(keys.skipped) == 1
    assert keys.skipped[0].startswith("key 0: ")


@pytest.mark.parametrize("key", [KEY, RSA])
def test_the_private_members_of_a_published_key_are_not_kept(key: SigningKey) -> None:
    to_jwk = ECAlgorithm.to_jwk if key is KEY else RSAAlgorithm.to_jwk
    private = dict(to_jwk(key.private, as_dict=True)) | {"key_ops": ["verify"]}
    [parsed] = parse_jwks(document(private)).keys
    assert not hasattr(parsed.material, "private_numbers")


@pytest.mark.parametrize(
    "bad", [b"", b"{", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"\xff", b"[" * 100_000]
)
def test_a_document_without_keys_is_refused(bad: bytes) -> None:
    with pytest.raises(UnusableKeys):
        parse_jwks(bad)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
_MEMBERS = ["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(_MEMBERS), _JSON), st.sampled_from([KEY.jwk, RSA.jwk, {}]))
def test_no_document_raises_anything_else(members: dict[str, Any], key: dict[str, Any]) -> None:
    with suppress(UnusableKeys):
        parse_jwks(document(key | members))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(UnusableKeys):
        shared_secret(b"password")
