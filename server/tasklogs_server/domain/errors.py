"""Expected errors, as exceptions that carry data. The middleware turns them into gRPC statuses.

`message` is one line for the caller. It contains no content, prompt, SQL, or text of a task app,
the driver or the caller. The only exception is the name of a task.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.status import StatusDetail


# The errors are dataclasses because they carry fields. They are not frozen, because contextlib
# assigns __traceback__. They are compared by identity, because an exception must be hashable.
@dataclass(eq=False)
class TaskLogsError(Exception):
    """The base of every expected error."""

    @property
    def message(self) -> str:
        """The error in one line, lower-case and without a full stop."""
        return str(self)


@dataclass(eq=False)
class TaskNotFound(TaskLogsError):
    """The task does not exist, was deleted, or is not visible: callers see no difference."""

    task: str

    def __str__(self) -> str:
        return f'task "{self.task}" was not found'


@dataclass(eq=False)
class TaskStateConflict(TaskLogsError):
    """The task's status refuses a live read; a snapshot read is still possible."""

    detail: StatusDetail

    def __str__(self) -> str:
        return (
            f'task status is "{self.detail.status.lower()}": logs cannot be read live;'
            " a snapshot read (source LOG_SOURCE_SNAPSHOT) is possible"
        )


@dataclass(eq=False)
class AgentUnreachable(TaskLogsError):
    """The task is ACTIVE, but no agent stream was opened in time."""

    waited: timedelta
    retry_after: timedelta

    def __str__(self) -> str:
        return f"no agent of the task was connected within {self.waited.total_seconds():g} s"


@dataclass(eq=False)
class TaskAppFailed(TaskLogsError):
    """The task is ACTIVE, but its app failed, sent invalid data or did not answer in time."""

    reason: str = field(repr=False)
    """The app's own text. Only the caller gets it: it is never logged."""

    def __str__(self) -> str:
        return "the task app could not be read"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, by its path in the proto, and what it must be."""

    field: str
    description: str


@dataclass(eq=False)
class InvalidFields(TaskLogsError):
    """The request is invalid; there is at least one violation."""

    violations: Sequence[FieldViolation]

    def __str__(self) -> str:
        listed = "; ".join(f"{one.field}: {one.description}" for one in self.violations)
        return f"invalid request: {listed}"


@dataclass(eq=False)
class TaskNameTaken(TaskLogsError):
    """The owner already has a task of this name."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f'task "{self.owner}/{self.name}" already exists'


@dataclass(eq=False)
class EtagMismatch(TaskLogsError):
    """The task was updated after the caller read it. Nothing was changed."""

    def __str__(self) -> str:
        return "the task has another etag: read it again"


@dataclass(eq=False)
class LimitExceeded(TaskLogsError):
    """`subject` says whose limit it is, `description` which. No `retry_after`: do not retry."""

    limit: Limit
    subject: str
    description: str
    retry_after: timedelta | None

    def __str__(self) -> str:
        return f"limit exceeded for {self.subject}: {self.description}"


@dataclass(eq=False)
class LogFull(TaskLogsError):
    """The log is at its limits, and no entry is old enough to be evicted."""

    entries: int
    bytes: int
    min_retention: timedelta
    retry_after: timedelta

    @property
    def limit(self) -> str:
        """The limits of a log, in words."""
        return (
            f"a log holds at most {self.entries} entries and {self.bytes} bytes, and no entry"
            f" younger than {self.min_retention.total_seconds():g} s is evicted"
        )

    def __str__(self) -> str:
        return f"the task's log is full: {self.limit}"


@dataclass(eq=False)
class RequestTooSlow(TaskLogsError):
    """A call's request did not arrive in time."""

    limit: timedelta

    def __str__(self) -> str:
        return f"the request did not arrive within {self.limit.total_seconds():g} s"


@dataclass(eq=False)
class TookTooLong(TaskLogsError):
    """A call without a deadline took longer than the server's default deadline."""

    limit: timedelta

    def __str__(self) -> str:
        return (
            f"timed out after {self.limit.total_seconds():g} s, the limit for calls without a"
            " deadline: set a deadline"
        )


@dataclass(eq=False)
class CursorExpired(TaskLogsError):
    """The log no longer has what follows a cursor or page token."""

    oldest: str | None
    """The oldest cursor that is valid."""

    def __str__(self) -> str:
        return "the log no longer holds what follows this cursor or page token"


@dataclass(eq=False)
class StoreUnavailable(TaskLogsError):
    """The store cannot be reached."""

    retry_after: timedelta

    def __str__(self) -> str:
        return "the store is unreachable"


@dataclass(eq=False)
class StoreBusy(StoreUnavailable):
    """The store works, but all its connections were in use for too long."""

    def __str__(self) -> str:
        return "the server is overloaded: timed out waiting for a database connection"


@dataclass(eq=False)
class ServerDraining(TaskLogsError):
    """This server is shutting down. Another server, or the next one, will accept the call."""

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
    """A report of an older build, or of an earlier state. Nothing was changed."""

    reason: str

    def __str__(self) -> str:
        return f"stale report: {self.reason}"


@dataclass(eq=False)
class BuildNotReported(TaskLogsError):
    """A report of the agent of a build that has not been reported. Nothing was changed."""

    build_number: int

    def __str__(self) -> str:
        return f"build {self.build_number} has not been reported yet"


@dataclass(eq=False)
class TaskStandalone(TaskLogsError):
    """A report on a standalone task. Nothing was changed."""

    def __str__(self) -> str:
        return "the task is standalone: its facts come from its agent alone"


@dataclass(eq=False)
class SessionOpen(TaskLogsError):
    """A snapshot cannot be uploaded while an agent stream is open."""

    def __str__(self) -> str:
        return "an agent session of the task is open"


@dataclass(eq=False)
class SessionSuperseded(TaskLogsError):
    """A later session of the task has raised the fence."""

    def __str__(self) -> str:
        return "a later session of the task has taken over"


@dataclass(eq=False)
class SessionLost(TaskLogsError):
    """The stored log changed, or the store was lost: the agent starts again from Welcome."""

    def __str__(self) -> str:
        return "the stored log changed, or the result of a commit is unknown; connect again"


@dataclass(eq=False)
class CommitRefused(TaskLogsError):
    """The store works, but refuses to store what this session or upload has sent."""

    retry_after: timedelta

    def __str__(self) -> str:
        return "the store refused what was appended"


@dataclass(eq=False)
class Unauthenticated(TaskLogsError):
    """A token is not valid; subclasses say what else may be wrong with the credentials.

    `reason` must not help to guess valid ones.
    """

    reason: str

    def __str__(self) -> str:
        return f"not authenticated: {self.reason}"


@dataclass(eq=False)
class TokenMissing(Unauthenticated):
    """The call has no token."""


@dataclass(eq=False)
class TokenExpired(Unauthenticated):
    """The token was valid once."""

    reason: str = "token expired"


@dataclass(eq=False)
class CertificateInvalid(Unauthenticated):
    """The client certificate does not name one caller."""


@dataclass(eq=False)
class KeysUnavailable(TaskLogsError):
    """The server has not been able to fetch any key for checking tokens since it started."""

    retry_after: timedelta

    def __str__(self) -> str:
        return "the keys for checking tokens have not been fetched yet"


@dataclass(eq=False)
class PermissionDenied(TaskLogsError):
    """The caller is authenticated, but not allowed to do this."""

    reason: str

    def __str__(self) -> str:
        return f"permission denied: {self.reason}"


@dataclass(eq=False)
class MethodUnknown(TaskLogsError):
    """The server has no such method."""

    def __str__(self) -> str:
        return "this server does not have this method"


@dataclass(eq=False)
class ServiceUnknown(TaskLogsError):
    """A health check names a service that the server does not have."""

    def __str__(self) -> str:
        return "no such service"


@dataclass(eq=False)
class Unsupported(TaskLogsError):
    """A message has a part that this server does not know. Nothing of the message was used."""

    what: str

    def __str__(self) -> str:
        return f"this server does not support {self.what}"


@dataclass(eq=False)
class ProtocolViolation(TaskLogsError):
    """An agent broke the rules of the stream."""

    description: str

    def __str__(self) -> str:
        return f"agent stream: {self.description}"
