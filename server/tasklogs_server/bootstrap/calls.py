"""What a call passes through before and after its handler."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tasklogs_server.bootstrap.limits import ServerLimits
from tasklogs_server.bootstrap.security import Security
from tasklogs_server.limits.caller_limits import Allowance, CallerLimits
from tasklogs_server.middleware.arrivals import Arrivals
from tasklogs_server.middleware.authentication import Access
from tasklogs_server.middleware.failures import Failures
from tasklogs_server.middleware.interceptor import CallInterceptor
from tasklogs_server.middleware.observation import CallObserver
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.middleware.responses import Sending
from tasklogs_server.settings import ServerSettings
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tasklogs_server.telemetry.assembly import Telemetry


@dataclass(frozen=True, slots=True)
class CallPath:
    """The middleware of one server, and what is known of the calls in it.

    The composition root runs `arrivals.cut_off` and `sending.cut_off`, which end calls that take
    too long.
    """

    interceptors: Sequence[CallObserver | CallInterceptor]
    """The outermost comes first."""
    open_calls: OpenCalls
    arrivals: Arrivals
    sending: Sending


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
    users = security.users(agent_tokens, caller_limits.take_call, clock=clock)
    open_calls = OpenCalls()
    arrivals = Arrivals(settings.request_timeout)
    sending = Sending(settings.answer_bytes, settings.answer_timeout, observer=telemetry.observer)
    calls = CallInterceptor(
        Access(users, agent_tokens, caller_limits).admission,
        calls=open_calls,
        admission=limits.admission,
        arrivals=arrivals,
        sending=sending,
        failures=Failures(telemetry.observer),
        default_deadline=settings.default_deadline,
    )
    observers = [CallObserver(telemetry.observer)] if telemetry.is_on else []
    return CallPath([*observers, calls], open_calls, arrivals, sending)
