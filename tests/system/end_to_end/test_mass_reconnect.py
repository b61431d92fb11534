"""Many agents reconnect after a restart.

For 2,000 agents: python -m tests.system.end_to_end.mass_reconnect
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.support.fixtures.postgres import PostgresServer
from tests.system.end_to_end.mass_reconnect import restarted

AGENTS = 200


@pytest.mark.parametrize("killed", [False, True], ids=["ended in order", "killed"])
async def test_all_agents_reconnect_soon_after_a_restart_without_disturbing_readers(
    postgres_server: PostgresServer, tmp_path: Path, killed: bool
) -> None:
    outcome = await restarted(
        postgres_server, tmp_path / "server.log", AGENTS, killed=killed, patience_seconds=60
    )

    assert outcome.reads, outcome
    assert {one.code for one in outcome.reads} == {grpc.StatusCode.OK}, outcome
    # No agent got a status that would be the server's fault.
    assert not {how.split()[0] for how in outcome.attempts} & {"INTERNAL", "UNKNOWN", "ABORTED"}
