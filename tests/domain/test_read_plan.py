"""Every cell of the read table."""

import pytest

from tasklogs_server.domain.errors import TaskStateConflict
from tasklogs_server.domain.read_plan import ReadPlan, Source, plan_earlier_epoch, plan_read
from tasklogs_server.domain.status import NO_FACTS, StatusDetail, TaskStatus

SYNC = ReadPlan.SYNC_THEN_READ
STORED = ReadPlan.READ_SNAPSHOT
REFUSED = None

TABLE = {
    TaskStatus.ACTIVE: (SYNC, SYNC, STORED),
    TaskStatus.PAUSED: (STORED, REFUSED, STORED),
    TaskStatus.PENDING: (STORED, REFUSED, STORED),
    TaskStatus.INITIALIZING: (STORED, REFUSED, STORED),
    TaskStatus.ERROR: (REFUSED, REFUSED, STORED),
    TaskStatus.UNKNOWN: (REFUSED, REFUSED, STORED),
}
CELLS = [
    pytest.param(status, source, plan, id=f"{status}-{source.name}")
    for status, plans in TABLE.items()
    for source, plan in zip((Source.DEFAULT, Source.LIVE, Source.SNAPSHOT), plans, strict=True)
]


def detail_of(status: TaskStatus) -> StatusDetail:
    return StatusDetail(NO_FACTS, build=status, agent=status, app=status, status=status)


def test_the_table_covers_every_status_and_source() -> None:
    assert set(TABLE) == set(TaskStatus)
    assert len(CELLS) == len(TaskStatus) * len(Source)


@pytest.mark.parametrize(("status", "source", "plan"), CELLS)
def test_status_and_source_decide_what_comes_before_the_read(
    status: TaskStatus, source: Source, plan: ReadPlan | None
) -> None:
    detail = detail_of(status)
    if plan is not None:
        assert plan_read(detail, source) is plan
        return
    with pytest.raises(TaskStateConflict) as refusal:
        plan_read(detail, source)
    assert refusal.value.detail is detail


@pytest.mark.parametrize(("status", "source", "plan"), CELLS)
def test_an_earlier_epoch_is_refused_alike_and_never_synced(
    status: TaskStatus, source: Source, plan: ReadPlan | None
) -> None:
    detail = detail_of(status)
    if plan is not None:
        assert plan_earlier_epoch(detail, source) is ReadPlan.READ_SNAPSHOT
        return
    with pytest.raises(TaskStateConflict) as refusal:
        plan_earlier_epoch(detail, source)
    assert refusal.value.detail is detail
