"""A sender that is no server of this service, or one that is broken: it costs a bounded amount."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from tasklogs_server.bus import interests, payloads, shared
from tasklogs_server.bus.interests import Interests
from tasklogs_server.bus.notes import Deleted
from tasklogs_server.bus.payloads import MalformedPayload
from tasklogs_server.bus.transport import Outgoing
from tests.bus.conftest import in_memory
from tests.support.fixtures.conditions import until

# The same in all processes of a test run, which name their tests by it.
A = uuid.UUID(int=1)
TASK = A.hex
TIME = "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "note",
    [
        f'["sync",1,"{TASK}",1,NaN]',
        f'["sync",1,"{TASK}",1,-1]',
        f'["sync",1,"{TASK}",1,1e300]',
        f'["sync",1,"{TASK}",{2**63},null]',
        f'["session","{TASK}",{2**63}]',
        f'["moved","{TASK}",{2**63}]',
        f'["moved","{TASK}",-1]',
        f'["synced",1,["{TIME[:-6]}",1,1,null],null]',
        f'["synced",1,["{TIME}",1,{2**63},null],null]',
        f'["synced",1,["{TIME}",1,1,"7"],null]',
        '["synced",1,null,{"why":1}]',
        '["synced",1,null,5]',
        f'["beat",{{"{TASK}":{2**63}}}]',
    ],
)
def test_a_note_with_a_value_that_no_server_sends_is_refused(note: str) -> None:
    with pytest.raises(MalformedPayload):
        payloads.decode(f"{uuid.uuid4().hex} a 1 [{note}]")


@pytest.mark.parametrize("number", [-1, 2**63])
def test_a_payload_has_a_number_that_can_be_counted(number: int) -> None:
    with pytest.raises(MalformedPayload):
        payloads.decode(f"{uuid.uuid4().hex} a {number} []")


async def refused_by(world: Any, messages: Sequence[str]) -> tuple[int, list[Any]]:
    """Send these; return how many processes the receiver then reaches, and its log."""
    async with world.two() as (one, other):
        with structlog.testing.capture_logs() as logged:
            for text in messages:
                await one.faults.transport.send([Outgoing(other.id, text)])
            one.bus.publish(Deleted(A))
            await until(lambda: other.notes == [Deleted(A)])
            return other.bus.processes, [
                line for line in logged if line["event"] == "bus.payload_refused"
            ]


async def test_a_flood_of_unknown_senders_takes_a_bounded_number_of_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared, "MAX_PROCESSES", 10)
    flood = [f"{uuid.uuid4().hex} d 1 []" for _ in range(500)]
    processes, logged = await refused_by(in_memory(), flood)
    assert processes == 10
    assert len(logged) == 1


async def test_a_payload_that_is_too_long_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = payloads.decode

    def note(text: str) -> payloads.Payload:
        decoded.append(len(text))
        return decode(text)

    monkeypatch.setattr(payloads, "decode", note)
    long = f'{uuid.uuid4().hex} d 1 [["weather","{"x" * 100_000}"]]'
    _, logged = await refused_by(in_memory(), [long] * 3)
    assert max(decoded) < 100_000
    assert len(logged) == 1


@pytest.mark.parametrize("is_said", [True, False], ids=["said", "changed"])
def test_a_process_that_follows_too_much_is_told_of_everything(
    monkeypatch: pytest.MonkeyPatch, is_said: bool
) -> None:
    monkeypatch.setattr(interests, "MAX_TASKS", 100)
    known, greedy, honest = Interests(), uuid.uuid4(), uuid.uuid4()
    known.said(honest, [A], is_last=True)
    known.said(greedy, [], is_last=True)
    for _ in range(50):
        if is_said:
            known.said(greedy, [uuid.uuid4() for _ in range(10)], is_last=False)
        else:
            known.changed(greedy, [uuid.uuid4() for _ in range(10)], [])
        assert known.task_count <= 111
    assert set(known.of(A)) == {greedy, honest}
    assert set(known.of(uuid.uuid4())) == {greedy}


@pytest.mark.parametrize("also_known", [False, True], ids=["first list", "another list"])
def test_the_end_of_a_list_that_is_too_long_is_not_taken_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch, also_known: bool
) -> None:
    monkeypatch.setattr(interests, "MAX_TASKS", 100)
    known, greedy = Interests(), uuid.uuid4()
    tasks = [uuid.uuid4() for _ in range(150)]
    if also_known:
        known.said(greedy, tasks[:90], is_last=True)
    known.said(greedy, tasks[:60], is_last=False)
    if also_known:
        known.changed(greedy, tasks[100:120], [])
    known.said(greedy, tasks[60:120], is_last=False)
    known.changed(greedy, [], tasks[:90])
    known.said(greedy, tasks[120:], is_last=True)
    assert all(greedy in known.of(one) for one in tasks)
    known.said(greedy, tasks[:30], is_last=True)
    assert [greedy in known.of(one) for one in tasks] == [True] * 30 + [False] * 120


def test_changes_to_a_list_that_never_ends_take_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interests, "MAX_TASKS", 100)
    known, greedy = Interests(), uuid.uuid4()
    known.unknown(greedy)
    known.said(greedy, [A], is_last=False)
    for _ in range(50):
        known.changed(greedy, [uuid.uuid4() for _ in range(10)], [])
        assert known.task_count <= 110
    assert greedy in known.of(A)
