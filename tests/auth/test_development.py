"""Development tokens: a key in a file signs them, and a server accepts them."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasklogs_server.auth import development
from tasklogs_server.auth.keys import parse_jwks
from tasklogs_server.auth.verifier import Expected, FixedKeys, TokenVerifier

EXPECTED = Expected(development.ISSUER, development.AUDIENCE, timedelta(0))
HOUR = timedelta(hours=1)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = development.key_file_in(tmp_path / "data")
    development.ensure_key(path)
    return path


async def test_a_minted_token_names_its_subject(key: Path) -> None:
    keys = FixedKeys(parse_jwks(key.read_bytes()))
    verifier = TokenVerifier(keys, EXPECTED, clock=lambda: datetime.now(UTC))
    alice = await verifier.user(
        development.mint(key, subject="alice", is_admin=False, lifetime=HOUR)
    )
    root = await verifier.user(development.mint(key, subject="root", is_admin=True, lifetime=HOUR))
    assert (alice.subject, alice.is_admin) == ("alice", False)
    assert (root.subject, root.is_admin) == ("root", True)


def test_the_key_is_readable_by_its_owner_alone_and_created_once(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    development.ensure_key(key)
    assert key.read_bytes() == before
    assert list(key.parent.iterdir()) == [key]


async def test_two_servers_that_create_it_at_once_use_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    await asyncio.gather(*(asyncio.to_thread(development.ensure_key, path) for _ in range(8)))
    parse_jwks(path.read_bytes())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"keys": [{"kty": "oct", "k": "eA"}]}'])
def test_the_error_without_a_key_says_what_is_missing(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(development.NoDevelopmentKey) as caught:
        development.mint(path, subject="alice", is_admin=False, lifetime=HOUR)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("subject", ["", "a" * 256, "a\nb", "a\x1bb", "a\u2028b", "\udcff"])
def test_a_subject_that_a_server_refuses_is_not_signed(key: Path, subject: str) -> None:
    with pytest.raises(development.InvalidSubject) as refusal:
        development.mint(key, subject=subject, is_admin=False, lifetime=HOUR)
    assert str(refusal.value).isprintable()


@given(st.text(max_size=300))
@example("ev\u200bil")
@example("a" * 255)
def test_every_subject_that_is_signed_is_accepted(subject: str) -> None:
    with TemporaryDirectory() as directory:
        key = development.key_file_in(Path(directory))
        development.ensure_key(key)
        keys = FixedKeys(parse_jwks(key.read_bytes()))
        verifier = TokenVerifier(keys, EXPECTED, clock=lambda: datetime.now(UTC))
        try:
            token = development.mint(key, subject=subject, is_admin=False, lifetime=HOUR)
        except development.InvalidSubject:
            return
        assert asyncio.run(verifier.user(token)).subject == subject
