"""What hostile peers do until they are cancelled. Nothing here looks at honest readers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.system.hostile.behaviours import (
    churn,
    floods,
    half_open,
    noise,
    slow,
    tokens_agent,
    tokens_user,
    unread,
)
from tests.system.hostile.behaviours.repeated import Behaviour

HALF_OPEN = frozenset(
    {
        "connected and silent",
        "half a TLS hello",
        "no preface",
        "no SETTINGS",
        "headers without end",
        "idle and well-behaved",
    }
)
"""The behaviours that keep `Target.half_open` connections each."""
CONTROL = "a busy process that sends nothing"
WITH_A_TOKEN: Mapping[str, Behaviour] = MappingProxyType(
    {
        "agent: uploads": tokens_agent.uploads,
        "agent: refused uploads": tokens_agent.refused_uploads,
        "agent: uploads in parts": tokens_agent.uploads_in_parts,
        "agent: huge first messages": tokens_agent.huge_first_messages,
        "agent: appends": tokens_agent.appends,
        "user: refused calls": tokens_user.refused_calls,
        "user: lists": tokens_user.lists,
        "user: pages": tokens_user.pages,
        "user: tasks that come and go": tokens_user.tasks_that_come_and_go,
        "user: rotations": tokens_user.rotations,
        "user: short deadlines": tokens_user.deadlines,
        "user: unread follows of a busy log": tokens_user.follows_of_a_busy_log,
        "user: reflection unread": tokens_user.reflection_unread,
        "user: reflection flood": tokens_user.reflection_flood,
        "admin: lists": tokens_user.lists_of_an_admin,
        "anyone: health": tokens_user.health_of_anyone,
    }
)
"""What one valid token of each kind allows. They need `Target.agent_tokens`."""
BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType(
    {
        CONTROL: churn.busy_neighbour,
        "random bytes": noise.random_bytes,
        "random bytes after the preface": noise.random_bytes_after_the_preface,
        "malformed frames": noise.malformed_frames,
        "CONTINUATION flood": floods.continuations,
        "rapid reset": floods.rapid_resets,
        "SETTINGS flood": floods.settings,
        "PING flood": floods.pings,
        "header bombs": floods.header_bombs,
        "oversized metadata": floods.oversized_metadata,
        "calls without a token": floods.calls_without_a_token,
        "connected and silent": half_open.silent,
        "half a TLS hello": half_open.half_a_hello,
        "no preface": half_open.no_preface,
        "no SETTINGS": half_open.no_settings,
        "headers without end": half_open.headers_without_end,
        "idle and well-behaved": half_open.idle,
        "unread reads": unread.reads,
        "unread follows": unread.follows,
        "unread agent streams": unread.agent_streams,
        "follows never read by a gRPC client": unread.follows_by_grpc,
        "connections that come and go": churn.connections,
        "requests without end": slow.requests,
        **WITH_A_TOKEN,
    }
)
