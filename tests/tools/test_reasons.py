"""The table of reasons: the protos, the server, the client library and the docs have the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tasklogs.errors import KINDS
from tasklogs.reasons import REASONS, Reason, Retry
from tools.docs import reasons

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))
CODES = "|".join(code.name for code in grpc.StatusCode)
# As comments name errors: the code, then in parentheses its reasons.
NAMED = re.compile(rf"\b({CODES})\s+\(((?:`[A-Z_]+`(?:,\s+)?)+)\)")


def named_in_protos() -> Iterator[tuple[str, str]]:
    """Yield each code with a reason that a comment names."""
    for proto in PROTOS:
        comments = " ".join(
            line.strip().removeprefix("//").strip()
            for line in proto.read_text().splitlines()
            if line.strip().startswith("//")
        )
        for code, names in NAMED.findall(comments):
            for name in re.findall(r"[A-Z_]+", names):
                yield code, name


def test_the_protos_name_every_reason_with_its_code_and_no_other() -> None:
    named = set(named_in_protos())

    assert named == {(one.code.name, one.name) for one in REASONS.values()}


@pytest.mark.parametrize("proto", PROTOS, ids=lambda one: one.name)
def test_a_reason_in_the_protos_follows_its_code_or_explains_it(proto: Path) -> None:
    """A name in parentheses that the other test would miss is a mistake."""
    text = re.sub(r"\s*\n\s*//\s*", " ", proto.read_text())
    alone = set(re.findall(r"\(`([A-Z_]{4,})`", text)) - {name for _, name in named_in_protos()}

    assert alone == set()


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda one: one.name)
def test_a_reason_has_a_name_and_a_meaning_that_fit_a_table(reason: Reason) -> None:
    assert REASONS[reason.name] is reason
    assert re.fullmatch(r"[A-Z][A-Z_]{1,61}[A-Z]", reason.name)  # as google.rpc.ErrorInfo asks
    assert reason.meaning.endswith(".")
    assert "|" not in reason.meaning
    assert "\n" not in reason.meaning


def test_the_docs_and_the_json_have_every_reason() -> None:
    page = (ROOT / "docs/api.md").read_text()
    data = json.loads((ROOT / "protos/tasklogs/v1/reasons.json").read_text())

    assert reasons.section() in page
    assert data["domain"] == "tasklogs.v1"
    assert [
        (one["reason"], one["code"], one["retry"], one["meaning"]) for one in data["reasons"]
    ] == [(one.name, one.code.name, one.retry.value, one.meaning) for one in REASONS.values()]


def test_the_client_library_knows_no_reason_that_does_not_exist() -> None:
    for (code, name), kind in KINDS.items():
        assert name is None or REASONS[name].code is code, kind


def test_an_error_that_may_be_repeated_at_once_is_not_one_that_may_have_changed_something() -> None:
    at_once = {one.name for one in REASONS.values() if one.retry is Retry.NOW}

    # A new one must be safe to repeat, whatever the method.
    assert at_once == {"SESSION_LOST", "REQUEST_TOO_SLOW", "TASK_APP_ERROR"}
