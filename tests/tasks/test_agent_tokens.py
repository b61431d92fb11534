"""An agent token opens its own task and nothing else."""

from __future__ import annotations

import uuid
from datetime import timedelta
from uuid import UUID

import pytest

from tasklogs_server.domain.errors import Unauthenticated
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.store import Store
from tasklogs_server.tasks.agent_tokens import AgentTokens, new_token
from tests.store.logs import new_task

SOON = timedelta(seconds=5)


async def token_of(store: Store, task_id: UUID) -> str:
    token, hash_ = new_token(task_id)
    await store.tasks.rotate_token(task_id, hash_)
    return token


async def test_a_token_opens_its_task(store: Store, task: UUID) -> None:
    agent = await AgentTokens(store.tasks, HandshakeQueue(1, SOON)).agent(
        await token_of(store, task)
    )
    assert agent.task_id == task
    await AgentTokens(store.tasks, HandshakeQueue(1, SOON)).still_opens(agent)


async def test_a_rotated_token_opens_nothing(store: Store, task: UUID) -> None:
    old = await token_of(store, task)
    new = await token_of(store, task)
    assert (await AgentTokens(store.tasks, HandshakeQueue(1, SOON)).agent(new)).task_id == task
    with pytest.raises(Unauthenticated):
        await AgentTokens(store.tasks, HandshakeQueue(1, SOON)).agent(old)


async def test_a_token_that_is_rotated_after_its_check_opens_nothing_any_more(
    store: Store, task: UUID
) -> None:
    tokens = AgentTokens(store.tasks, HandshakeQueue(1, SOON))
    agent = await tokens.agent(await token_of(store, task))
    await token_of(store, task)
    with pytest.raises(Unauthenticated):
        await tokens.still_opens(agent)


async def test_another_tasks_secret_does_not_open_this_one(store: Store, task: UUID) -> None:
    mine = await token_of(store, task)
    other = await new_task(store)
    theirs = await token_of(store, other)
    crossed = theirs.replace(other.hex, task.hex)
    assert crossed != mine
    with pytest.raises(Unauthenticated):
        await AgentTokens(store.tasks, HandshakeQueue(1, SOON)).agent(crossed)


async def test_a_deleted_tasks_token_opens_nothing(store: Store, task: UUID) -> None:
    token = await token_of(store, task)
    await store.tasks.delete(task)
    with pytest.raises(Unauthenticated):
        await AgentTokens(store.tasks, HandshakeQueue(1, SOON)).agent(token)


def malformed(task: UUID) -> list[str]:
    hex_ = task.hex
    return [
        *("", "x", "tla_", "tla__", f"tla_{hex_}", f"tla_{hex_}_", f"tla_{'g' * 32}_secret"),
        *(f"{hex_}_secret", f"tla_{task}_secret", f"tla_{hex_}_\0é\ud800", "a" * 100_000),
        f"tla_{uuid.uuid4().hex}_secret",
    ]


async def test_a_malformed_token_opens_nothing(store: Store, task: UUID) -> None:
    for token in malformed(task):
        with pytest.raises(Unauthenticated):
            await AgentTokens(store.tasks, HandshakeQueue(1, SOON)).agent(token)


def test_tokens_are_random_and_only_their_hash_is_stored() -> None:
    task_id = uuid.uuid4()
    (first, hash_), (second, _) = new_token(task_id), new_token(task_id)
    assert first != second
    assert len(hash_) == 32
    assert first.encode() not in hash_
