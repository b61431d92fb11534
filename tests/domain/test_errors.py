"""Messages of errors: one plain line, with nothing that the caller must not see."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tasklogs_server.domain import errors
from tasklogs_server.domain.errors import FieldViolation, TaskLogsError
from tasklogs_server.domain.limits import Limit
from tasklogs_server.domain.status import NO_FACTS, StatusDetail, TaskStatus, derive

SOON = timedelta(seconds=1)

MESSAGES: list[tuple[TaskLogsError, str]] = [
    (errors.TaskNotFound("alice/fix"), 'task "alice/fix" was not found'),
    (
        errors.TaskStateConflict(derive(NO_FACTS)),
        'task status is "pending": logs cannot be read live;'
        " a snapshot read (source LOG_SOURCE_SNAPSHOT) is possible",
    ),
    (
        errors.AgentUnreachable(timedelta(milliseconds=2500), SOON),
        "no agent of the task was connected within 2.5 s",
    ),
    (errors.TaskAppFailed("it said so"), "the task app could not be read"),
    (
        errors.InvalidFields(
            [FieldViolation("tail", "must not be negative"), FieldViolation("task", "is missing")]
        ),
        "invalid request: tail: must not be negative; task: is missing",
    ),
    (errors.TaskNameTaken("alice", "fix"), 'task "alice/fix" already exists'),
    (errors.EtagMismatch(), "the task has another etag: read it again"),
    (
        errors.LimitExceeded(Limit.EPOCHS_PER_HOUR, "new epochs", "60 per task and hour", SOON),
        "limit exceeded for new epochs: 60 per task and hour",
    ),
    (
        errors.LogFull(100, 1000, timedelta(days=7), SOON),
        "the task's log is full: a log holds at most 100 entries and 1000 bytes, and no entry"
        " younger than 604800 s is evicted",
    ),
    (errors.CursorExpired(None), "the log no longer holds what follows this cursor or page token"),
    (errors.StoreUnavailable(SOON), "the store is unreachable"),
    (
        errors.StoreBusy(SOON),
        "the server is overloaded: timed out waiting for a database connection",
    ),
    (
        errors.RequestTooSlow(timedelta(seconds=30)),
        "the request did not arrive within 30 s",
    ),
    (
        errors.TookTooLong(timedelta(seconds=60)),
        "timed out after 60 s, the limit for calls without a deadline: set a deadline",
    ),
    (
        errors.KeysUnavailable(SOON),
        "the keys for checking tokens have not been fetched yet",
    ),
    (errors.ServerDraining(SOON), "the server is draining"),
    (errors.LogCorrupt(), "the stored log is corrupt"),
    (errors.StaleReport("build 1 is older"), "stale report: build 1 is older"),
    (errors.BuildNotReported(3), "build 3 has not been reported yet"),
    (
        errors.TaskStandalone(),
        "the task is standalone: its facts come from its agent alone",
    ),
    (errors.SessionOpen(), "an agent session of the task is open"),
    (errors.SessionSuperseded(), "a later session of the task has taken over"),
    (
        errors.SessionLost(),
        "the stored log changed, or the result of a commit is unknown; connect again",
    ),
    (errors.CommitRefused(SOON), "the store refused what was appended"),
    (errors.Unauthenticated("no agent token"), "not authenticated: no agent token"),
    (errors.PermissionDenied("another owner"), "permission denied: another owner"),
    (errors.TokenMissing("a token is needed"), "not authenticated: a token is needed"),
    (errors.CertificateInvalid("certificate missing"), "not authenticated: certificate missing"),
    (errors.TokenExpired(), "not authenticated: token expired"),
    (errors.MethodUnknown(), "this server does not have this method"),
    (errors.ServiceUnknown(), "no such service"),
    (errors.Unsupported("entries of type 7"), "this server does not support entries of type 7"),
    (errors.ProtocolViolation("no hello"), "agent stream: no hello"),
]


def subclasses_of(kind: type[TaskLogsError]) -> Iterator[type[TaskLogsError]]:
    for one in kind.__subclasses__():
        # Without the classes that tests and other modules define.
        if one.__module__ == errors.__name__:
            yield one
            yield from subclasses_of(one)


def test_every_error_is_listed_here() -> None:
    assert {type(error) for error, _ in MESSAGES} == set(subclasses_of(TaskLogsError))


@pytest.mark.parametrize(
    ("error", "message"), MESSAGES, ids=[type(error).__name__ for error, _ in MESSAGES]
)
def test_a_message_is_one_lower_case_line(error: TaskLogsError, message: str) -> None:
    assert error.message == str(error) == message
    assert message[0].islower()
    assert not message.endswith(".")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("status", [one for one in TaskStatus if one is not TaskStatus.ACTIVE])
def test_a_conflict_names_the_status_and_the_read_that_is_possible(status: TaskStatus) -> None:
    conflict = errors.TaskStateConflict(StatusDetail(NO_FACTS, status, status, status, status))
    assert conflict.message.startswith(f'task status is "{status.lower()}": ')
    assert "LOG_SOURCE_SNAPSHOT" in conflict.message


def test_the_text_of_a_task_app_is_only_in_the_reason() -> None:
    failure = errors.TaskAppFailed("the secret prompt")
    assert failure.reason == "the secret prompt"
    logged = [failure.message, str(failure), repr(failure), *traceback.format_exception(failure)]
    assert not any("secret" in line for line in logged)


@pytest.mark.parametrize("error", [error for error, _ in MESSAGES], ids=lambda e: type(e).__name__)
def test_an_error_passes_through_context_managers_and_sets(error: TaskLogsError) -> None:
    @contextmanager
    def passing() -> Iterator[None]:
        yield

    with pytest.raises(type(error)) as caught, passing():
        raise error
    assert caught.value is error
    assert error in {error}
