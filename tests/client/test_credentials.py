"""The token that is sent with a call."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasklogs.client.credentials import Credentials, Token


async def test_a_token_from_a_file_is_sent_without_the_final_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c\r\n")

    async def asked() -> str:
        return file.read_text()

    for token in (file.read_text(), file.read_text, asked):
        assert await Credentials(token).metadata() == (("authorization", "Bearer a.b.c"),)


@pytest.mark.parametrize("token", ["Bearer secret", "secret\nsecret", "secr\u00e9t", "secret\0"])
async def test_a_token_that_no_header_can_hold_is_a_value_error_without_the_token(
    token: str,
) -> None:
    with pytest.raises(ValueError, match="one printable ASCII word") as caught:
        await Credentials(token).metadata()

    assert "secr" not in str(caught.value)


@pytest.mark.parametrize("token", [None, "", " \n", lambda: ""], ids=["none", "", "blank", "call"])
async def test_without_a_token_there_is_no_metadata(token: Token | None) -> None:
    assert await Credentials(token).metadata() == ()
