"""What a call passes through before and after its handler."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tasklogs_server.bootstrap.limits import ServerLimits
from tasklogs_server.bootstrap.security import Security
from tasklogs_server.limits.caller_limits import Allowance, CallerLimits
from tasklogs_server.middleware.authentication import Authentication
from tasklogs_server.middleware.failures import Failures
from tasklogs_server.middleware.interceptor import CallInterceptor
from tasklogs_server.middleware.observation import CallObserver
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.middleware.operations import OperationStreams
from tasklogs_server.middleware.requests import RequestBodies
from tasklogs_server.middleware.responses import Responses
from tasklogs_server.middleware.unsent_messages import UnsentMessages
from tasklogs_server.settings import ServerSettings
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tasklogs_server.telemetry.assembly import Telemetry
from tasklogs_server.transport import grpc_workarounds


@dataclass(frozen=True, slots=True)
class CallPath:
    """The middleware of one server, and what is known of the calls in it.

    The composition root runs `bodies.cut_off` and `responses.cut_off`, which end calls that take
    too long.
    """

    interceptors: Sequence[CallObserver | CallInterceptor]
    """The outermost comes first."""
    open_calls: OpenCalls
    bodies: RequestBodies
    responses: Responses
    unsent: UnsentMessages


def call_path_of(
    settings: ServerSettings,
    security: Security,
    agent_tokens: AgentTokens,
    limits: ServerLimits,
    telemetry: Telemetry,
    *,
    clock: Callable[[], datetime],
) -> CallPath:
    """Build the middleware."""
    allowance = Allowance(
        settings.calls_per_second,
        settings.calls_at_once,
        settings.streams_per_caller,
        settings.health_watches,
        settings.agent_connects_per_second,
        settings.agent_connects_at_once,
    )
    caller_limits = CallerLimits(allowance, clock=time.monotonic)
    users = security.users(agent_tokens, caller_limits.count_call, clock=clock)
    open_calls = OpenCalls()
    bodies = RequestBodies(settings.request_timeout, stream_within=settings.upload_timeout)
    responses = Responses(
        settings.answer_bytes,
        settings.answer_timeout,
        reset=grpc_workarounds.reset_calls,
        observer=telemetry.observer,
    )
    calls = CallInterceptor(
        Authentication(users, agent_tokens, caller_limits).of,
        calls=open_calls,
        bodies=bodies,
        responses=responses,
        operations=OperationStreams(caller_limits, bodies, responses),
        admission=limits.admission,
        uploads=limits.uploads,
        failures=Failures(telemetry.observer),
        default_deadline=settings.default_deadline,
    )
    observers = [CallObserver(telemetry.observer)] if telemetry.is_on else []
    return CallPath([*observers, calls], open_calls, bodies, responses, UnsentMessages(responses))
