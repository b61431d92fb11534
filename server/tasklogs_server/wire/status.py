"""A task's status, as it travels."""

from __future__ import annotations

from tasklogs.v1 import types_pb2 as types
from tasklogs_server.domain.status import StatusDetail
from tasklogs_server.wire.enums import (
    AGENT_LIFECYCLE,
    APP_HEALTH,
    BUILD_TRANSITION,
    JOB_STATUS,
    TASK_STATUS,
)


def status_detail(detail: StatusDetail) -> types.StatusDetail:
    """Encode the facts and what each layer made of them."""
    facts = detail.facts
    return types.StatusDetail(
        build=types.StatusDetail.Build(
            number=facts.build_number or 0,
            transition=BUILD_TRANSITION.encode(facts.transition),
            job_status=JOB_STATUS.encode(facts.job_status),
            computed=TASK_STATUS.encode(detail.build),
        ),
        agent=types.StatusDetail.Agent(
            lifecycle=AGENT_LIFECYCLE.encode(facts.lifecycle),
            computed=TASK_STATUS.encode(detail.agent),
        ),
        app=types.StatusDetail.App(
            health=APP_HEALTH.encode(facts.health), computed=TASK_STATUS.encode(detail.app)
        ),
    )
