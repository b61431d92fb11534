"""A token that no server takes is refused when a command starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from tasklogs.cli.token_text import checked_token, read_token
from tasklogs.connection.limits import MAX_TOKEN_BYTES

LONGEST = "t" * MAX_TOKEN_BYTES


def test_the_longest_token_is_read_with_the_white_space_around_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"\n  {LONGEST}\r\n\n")

    assert read_token(file) == LONGEST


def test_a_longer_token_in_a_file_is_refused_and_not_cut(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for size_bytes in (MAX_TOKEN_BYTES + 1, 100_000):
        file.write_text("t" * size_bytes)

        with pytest.raises(typer.BadParameter) as caught:
            read_token(file)

        said = f"{file} has a token of more than 16384 bytes, which servers refuse"
        assert str(caught.value) == said


def test_a_longer_token_in_a_variable_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match=r"^TASKLOGS_TOKEN has a token of more than"):
        checked_token(LONGEST + "t", "TASKLOGS_TOKEN")
