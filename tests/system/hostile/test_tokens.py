"""What one valid token of each kind allows, all at once, against a server with small limits.

The assertions hold on any machine. `python -m tests.system.hostile --tokens` measures how much
slower honest callers become.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tasklogs_server.settings import ServerSettings
from tests.system.hostile.behaviours import WITH_A_TOKEN
from tests.system.hostile.memory import MIB, SMALL, ceiling
from tests.system.hostile.options import ALL_TOKENS_TOGETHER, names_of, parse
from tests.system.hostile.readers import KINDS, readers
from tests.system.hostile.rounds import Plan, attackers, compare
from tests.system.hostile.served import Mode, served
from tests.system.hostile.verdict import UNEXPECTED

ATTACK_SECONDS = 4.0
# Of one CPU. On a busy machine a call may wait longer than usual, and is not refused for that.
ATTACKERS_SHARE = 0.15
PATIENCE = {"store_wait": "60"}
MOST_BYTES = ceiling(ServerSettings.model_validate(SMALL), sending_agents=12, streams=3_000)


async def test_the_worst_of_all_tokens_takes_no_more_memory_than_stated_and_refuses_no_other_caller(
    database: str, tmp_path: Path
) -> None:
    limits = {name: str(value) for name, value in SMALL.items()} | PATIENCE
    async with (
        served(tmp_path, Mode.TLS, database_url=database, **limits) as server,
        readers(server) as reading,
        attackers() as attacking,
    ):
        compared = await compare(
            ALL_TOKENS_TOGETHER,
            [*WITH_A_TOKEN],
            target=await server.target_of_tokens(labelled=20),
            server=server.process,
            reading=reading,
            attacking=attacking,
            plan=Plan(1, 1.0, ATTACK_SECONDS, ATTACKERS_SHARE, MOST_BYTES),
        )
        for kind in KINDS:
            told = f"{kind}: p99 {compared.ratio(kind):.1f} times that beside a busy process"
            print(told)  # noqa: T201 - shown only if the test fails
        said = server.program.said.splitlines()

    assert compared.failures == []
    assert compared.peak_bytes <= MOST_BYTES, f"{compared.peak_bytes / MIB:.0f} MiB"
    assert sum(compared.ends().values()) > 0
    assert [line for line in said if any(word in line for word in UNEXPECTED)] == []


def test_each_behaviour_and_all_together_have_a_row() -> None:
    names = names_of(parse(None, ["--tokens"]), Mode.TLS)

    assert names == [*WITH_A_TOKEN, ALL_TOKENS_TOGETHER]


@pytest.mark.parametrize("name", WITH_A_TOKEN)
def test_what_needs_a_token_is_not_measured_where_there_is_none(name: str) -> None:
    assert name not in names_of(parse(None, []), Mode.PLAIN)
