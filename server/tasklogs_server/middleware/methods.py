"""One row for each RPC: who may call it, and which limit it counts against.

A registered method without a row stops the server at start (`transport/registration.py`). A call of
a method without a row is refused: `CLOSED`. Whether requests and responses are streams is not in
the row: the handler that is made from the method's descriptor says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from tasklogs_server.limits.admission import Kind


class Rule(Enum):
    """Who may call a method.

    It is checked before the request is read. What it says of tasks and owners needs the request:
    handlers check that, all through `domain.caller`.
    """

    CLOSED = auto()
    """Nobody."""
    PUBLIC = auto()
    """Anyone, without credentials."""
    AUTHENTICATED = auto()
    """Any user."""
    USER_OR_AGENT = auto()
    """Any user, and the agent of any task."""
    OWN_TASK = auto()
    """The task's owner and admins. For other users the task does not exist (`visible`)."""
    OWN_NAME = auto()
    """Users in their own name, admins in any (`User.owner_of_new`, `User.owner_to_list`)."""
    ADMIN = auto()
    """Admins."""
    AGENT = auto()
    """The agent of the task that its token names."""


@dataclass(frozen=True, slots=True)
class Method:
    """What the middleware knows about one RPC."""

    rule: Rule
    kind: Kind
    request_bytes: int | None = None
    """A larger request is refused, and not decoded. None: only the limit of all messages holds."""
    request_fields: int | None = None
    """A request with more fields is refused, and not decoded. Each label counts as a field."""
    is_decoded_by_handler: bool = False
    """The handler gets the request as bytes. It is so large that its turn comes first; or most
    requests are repeated, and known by their bytes."""
    has_own_queue: bool = False
    """Until they are accepted, its calls wait in a queue of their own (`CallAcceptor`)."""


# A valid request has a sixth of it.
_WITH_LABELS_BYTES = 1024 * 1024
# Names of services and symbols. An answer of reflection repeats its request.
_OPERATIONS_BYTES = 4096


def _operation(rule: Rule) -> Method:
    return Method(rule, Kind.OPERATIONS, request_bytes=_OPERATIONS_BYTES)


# A task has at most 64 labels. The time to decode a map grows faster than its size: 300,000 labels
# take a second, and the 80,000 that fit into 1 MiB take 60 ms.
_WITH_LABELS_FIELDS = 1000
# Valid ones have names, cursors and numbers, and a list of types or of selectors.
_SMALL_BYTES = 256 * 1024


def _small(rule: Rule, kind: Kind, *, has_own_queue: bool = False) -> Method:
    return Method(rule, kind, request_bytes=_SMALL_BYTES, has_own_queue=has_own_queue)


def _with_labels(rule: Rule) -> Method:
    return Method(
        rule,
        Kind.WRITE,
        request_bytes=_WITH_LABELS_BYTES,
        request_fields=_WITH_LABELS_FIELDS,
    )


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "/tasklogs.v1.TaskLogs/GetTaskLogs": Method(
            Rule.OWN_TASK,
            Kind.READ,
            request_bytes=_SMALL_BYTES,
            is_decoded_by_handler=True,
            has_own_queue=True,
        ),
        "/tasklogs.v1.TaskLogs/FollowTaskLogs": _small(
            Rule.OWN_TASK, Kind.FOLLOW, has_own_queue=True
        ),
        "/tasklogs.v1.TaskLogs/GetServerInfo": _small(Rule.USER_OR_AGENT, Kind.READ),
        "/tasklogs.v1.Tasks/CreateTask": _with_labels(Rule.OWN_NAME),
        "/tasklogs.v1.Tasks/GetTask": _small(Rule.OWN_TASK, Kind.READ, has_own_queue=True),
        "/tasklogs.v1.Tasks/ListTasks": _small(Rule.OWN_NAME, Kind.LIST, has_own_queue=True),
        "/tasklogs.v1.Tasks/UpdateTask": _with_labels(Rule.OWN_TASK),
        "/tasklogs.v1.Tasks/DeleteTask": _small(Rule.OWN_TASK, Kind.WRITE),
        "/tasklogs.v1.Tasks/ReportBuild": _small(Rule.OWN_TASK, Kind.WRITE, has_own_queue=True),
        "/tasklogs.v1.Tasks/ReportAgent": _small(Rule.OWN_TASK, Kind.WRITE, has_own_queue=True),
        "/tasklogs.v1.Tasks/RotateAgentToken": _small(Rule.OWN_TASK, Kind.WRITE),
        "/tasklogs.v1.TaskAgents/Connect": Method(
            Rule.AGENT, Kind.AGENT, is_decoded_by_handler=True, has_own_queue=True
        ),
        "/tasklogs.v1.TaskAgents/UploadLogSnapshot": Method(
            Rule.AGENT, Kind.UPLOAD, is_decoded_by_handler=True
        ),
        "/tasklogs.v1.TaskAgents/UploadLogSnapshotInParts": Method(
            Rule.AGENT, Kind.UPLOAD, is_decoded_by_handler=True
        ),
        # Probes have no credentials.
        "/grpc.health.v1.Health/Check": _operation(Rule.PUBLIC),
        "/grpc.health.v1.Health/List": _operation(Rule.PUBLIC),
        "/grpc.health.v1.Health/Watch": _operation(Rule.PUBLIC),
        # Channelz shows every caller's address, and the methods that they call.
        "/grpc.channelz.v1.Channelz/GetChannel": _operation(Rule.ADMIN),
        "/grpc.channelz.v1.Channelz/GetServer": _operation(Rule.ADMIN),
        "/grpc.channelz.v1.Channelz/GetServerSockets": _operation(Rule.ADMIN),
        "/grpc.channelz.v1.Channelz/GetServers": _operation(Rule.ADMIN),
        "/grpc.channelz.v1.Channelz/GetSocket": _operation(Rule.ADMIN),
        "/grpc.channelz.v1.Channelz/GetSubchannel": _operation(Rule.ADMIN),
        "/grpc.channelz.v1.Channelz/GetTopChannels": _operation(Rule.ADMIN),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _operation(Rule.AUTHENTICATED),
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _operation(
            Rule.AUTHENTICATED
        ),
    }
)

OWN_QUEUES: Sequence[str] = tuple(name for name, row in METHODS.items() if row.has_own_queue)
"""The methods that are called all the time. Each queue may take as much memory as another one."""

CLOSED = Method(Rule.CLOSED, Kind.WRITE)
"""The row of every method that has none."""


def method_of(name: str) -> Method:
    """Return the row of a method, given its whole name: `/package.Service/Method`."""
    return METHODS.get(name, CLOSED)


def without_row(names: Iterable[str]) -> Sequence[str]:
    """Return those of `names` that have no row, sorted."""
    return sorted(name for name in names if name not in METHODS)
