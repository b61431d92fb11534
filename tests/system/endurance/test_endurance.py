"""A small run of the endurance program, and its verdict on handmade records."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasklogs_server.middleware.methods import METHODS
from tests.system.endurance.calls import AGENTS, NEVER_ANSWERED, Ids, Made, answered, refused
from tests.system.endurance.footprint import Footprint
from tests.system.endurance.run import Amounts, Record, endure
from tests.system.endurance.verdict import broken

# Enough for every refusal to be made once.
SMALL = Amounts(answered=60, refused=90, sessions=130, follows=60)
UNBOUNDED = float("inf")


async def test_every_call_of_a_small_run_ends_as_it_must(database: str, tmp_path: Path) -> None:
    told: list[str] = []

    record = await endure(SMALL, tmp_path, database, told.append)

    # So short a run says nothing about memory.
    assert list(broken(record, growth=UNBOUNDED)) == [], told
    assert sum(record.ended.values()) == 340
    assert {name for name, _ in record.ended if name.startswith("/")} == METHODS.keys()
    assert len(told) == 10


def test_every_rpc_is_answered_and_refused() -> None:
    made = Made()

    assert {case.path for case in refused(made)} == METHODS.keys()
    assert {case.path for case in answered(made, Ids(1, 2))} == (
        METHODS.keys() - NEVER_ANSWERED - {AGENTS + "Connect"}
    )


def test_a_run_with_the_same_footprint_is_good() -> None:
    assert list(broken(_record(last=Footprint(109, 50, 20, 12)))) == []


@pytest.mark.parametrize(
    ("last", "named"),
    [
        (Footprint(111, 50, 20, 12), "MB"),
        (Footprint(100, 99, 20, 12), "files"),
        (Footprint(100, 50, 99, 12), "threads"),
        (Footprint(100, 50, 20, 99), "backends"),
    ],
)
def test_a_server_that_holds_more_at_the_end_is_bad(last: Footprint, named: str) -> None:
    (what,) = broken(_record(last))

    assert named in what


def test_a_status_that_is_not_the_expected_one_is_bad() -> None:
    record = _record(last=Footprint(100, 50, 20, 12))
    record.note("a follow", "INTERNAL", "OK")

    assert list(broken(record)) == ["1 times: a follow ended with INTERNAL instead of OK"]


def test_an_error_in_the_log_of_the_server_is_bad() -> None:
    record = _record(last=Footprint(100, 50, 20, 12))
    record.said = ["[error    ] rpc.failed"]

    assert list(broken(record)) == ["the server's log: [error    ] rpc.failed"]


def _record(last: Footprint) -> Record:
    return Record(footprints=[Footprint(100, 50, 20, 12), last])
