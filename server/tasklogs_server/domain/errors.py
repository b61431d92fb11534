"""What can go wrong, as exceptions that carry data; how they travel is the services' affair.

`message` is one line for the caller. It never holds content, prompts, SQL, or what a task app said;
text from the caller and the driver stays out too, save the name of a task.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.status import StatusDetail


# Dataclasses for their fields; not frozen, because contextlib assigns __traceback__, and compared
# by identity, because an exception must stay hashable.
@dataclass(eq=False)
class TaskLogsError(Exception):
    """The base of every expected error."""

    @property
    def message(self) -> str:
        """The error in one line, lower-case and without a full stop."""
        return str(self)


@dataclass(eq=False)
class TaskNotFound(TaskLogsError):
    """No such task, a deleted one, or not the caller's to see: these three look alike."""

    task: str

    def __str__(self) -> str:
        return f'task "{self.task}" was not found'


@dataclass(eq=False)
class TaskStateConflict(TaskLogsError):
    """The task's state refuses the read; the stored log may still be asked for."""

    detail: StatusDetail

    def __str__(self) -> str:
        return (
            f'task status is "{self.detail.status.lower()}": logs cannot be read live;'
            " a snapshot read (source LOG_SOURCE_SNAPSHOT) is possible"
        )


@dataclass(eq=False)
class AgentUnreachable(TaskLogsError):
    """The task is ACTIVE, but no agent stream came in time."""

    waited: timedelta
    retry_after: timedelta

    def __str__(self) -> str:
        return f"no agent of the task was connected within {self.waited.total_seconds():g} s"


@dataclass(eq=False)
class TaskAppFailed(TaskLogsError):
    """The task is ACTIVE, but its app failed, spoke nonsense or did not answer in time."""

    reason: str = field(repr=False)
    """What the app said: for the caller's eyes, never for a log."""

    def __str__(self) -> str:
        return "the task app could not be read"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, by its path in the proto, and what it must be."""

    field: str
    description: str


@dataclass(eq=False)
class InvalidFields(TaskLogsError):
    """The request itself is wrong; at least one violation."""

    violations: Sequence[FieldViolation]

    def __str__(self) -> str:
        listed = "; ".join(f"{one.field}: {one.description}" for one in self.violations)
        return f"invalid request: {listed}"


@dataclass(eq=False)
class TaskNameTaken(TaskLogsError):
    """The owner has a task of this name already."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f'task "{self.owner}/{self.name}" already exists'


@dataclass(eq=False)
class LimitExceeded(TaskLogsError):
    """`subject` names whose limit it is, `description` the limit; no `retry_after`: never retry."""

    limit: Limit
    subject: str
    description: str
    retry_after: timedelta | None

    def __str__(self) -> str:
        return f"limit exceeded for {self.subject}: {self.description}"


@dataclass(eq=False)
class LogFull(TaskLogsError):
    """The log is at its limits, and nothing in it is old enough to make room."""

    entries: int
    bytes: int
    min_retention: timedelta
    retry_after: timedelta

    @property
    def limit(self) -> str:
        """What a log may hold."""
        return (
            f"a log holds at most {self.entries} entries and {self.bytes} bytes, and loses none"
            f" younger than {self.min_retention.total_seconds():g} s"
        )

    def __str__(self) -> str:
        return f"the task's log is full: {self.limit}"


@dataclass(eq=False)
class RequestTooSlow(TaskLogsError):
    """A call's request did not come in."""

    limit: timedelta

    def __str__(self) -> str:
        return f"the request did not come in within {self.limit.total_seconds():g} s"


@dataclass(eq=False)
class TookTooLong(TaskLogsError):
    """A call without a deadline took longer than the server lets it."""

    limit: timedelta

    def __str__(self) -> str:
        return (
            f"not done within {self.limit.total_seconds():g} s, which a call without a deadline may"
            " take: set a deadline"
        )


@dataclass(eq=False)
class CursorExpired(TaskLogsError):
    """The place that a cursor or page token names is no longer held."""

    oldest: str | None
    """The oldest cursor that is held."""

    def __str__(self) -> str:
        return "this place in the log is no longer held"


@dataclass(eq=False)
class StoreUnavailable(TaskLogsError):
    """The store cannot be reached."""

    retry_after: timedelta

    def __str__(self) -> str:
        return "the store is unreachable"


@dataclass(eq=False)
class StoreBusy(StoreUnavailable):
    """The store is there, but too many want something of it: the caller's turn did not come."""

    def __str__(self) -> str:
        return "the server has more to do than it can: too many calls wait for the store"


@dataclass(eq=False)
class ServerDraining(TaskLogsError):
    """This server is about to leave; another, or the next, will answer."""

    retry_after: timedelta

    def __str__(self) -> str:
        return "the server is draining"


@dataclass(eq=False)
class LogCorrupt(TaskLogsError):
    """The store reports corruption, or stored bytes cannot be decoded."""

    def __str__(self) -> str:
        return "the stored log is corrupt"


@dataclass(eq=False)
class StaleReport(TaskLogsError):
    """A report for another build than the latest, or one that moves backwards; nothing changed."""

    reason: str

    def __str__(self) -> str:
        return f"stale report: {self.reason}"


@dataclass(eq=False)
class SessionOpen(TaskLogsError):
    """A snapshot cannot be uploaded beside an open agent stream."""

    def __str__(self) -> str:
        return "an agent session of the task is open"


@dataclass(eq=False)
class SessionSuperseded(TaskLogsError):
    """A later session of the task has raised the fence."""

    def __str__(self) -> str:
        return "a later session of the task has taken over"


@dataclass(eq=False)
class SessionLost(TaskLogsError):
    """The store moved, or was lost, under the session: the agent starts again from Welcome."""

    def __str__(self) -> str:
        return "the stored log moved under this session; connect again"


@dataclass(eq=False)
class CommitRefused(TaskLogsError):
    """The store works, but does not take what this one session or upload brought."""

    retry_after: timedelta

    def __str__(self) -> str:
        return "the store refused what was appended"


@dataclass(eq=False)
class Unauthenticated(TaskLogsError):
    """No credentials, or bad ones. `reason` does not say what is wrong with them: it may help."""

    reason: str

    def __str__(self) -> str:
        return f"not authenticated: {self.reason}"


@dataclass(eq=False)
class KeysUnavailable(TaskLogsError):
    """No key to check tokens with could be had since the server started."""

    retry_after: timedelta

    def __str__(self) -> str:
        return "the keys that tokens are checked with could not be fetched yet"


@dataclass(eq=False)
class PermissionDenied(TaskLogsError):
    """The caller is known, but not allowed to do this at all."""

    reason: str

    def __str__(self) -> str:
        return f"permission denied: {self.reason}"


@dataclass(eq=False)
class ProtocolViolation(TaskLogsError):
    """An agent broke the rules of the stream."""

    description: str

    def __str__(self) -> str:
        return f"agent stream: {self.description}"
