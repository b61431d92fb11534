"""The clients of TaskLogs: client library, stubs (v1), log algebra, agent, command line.
Nothing here imports tasklogs_server, except the commands `tasklogs serve` and `tasklogs token`.

    async with TaskLogsClient("127.0.0.1:50051") as client:
        async for event in client.follow("local/demo"):
            ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasklogs import errors, reasons
    from tasklogs.client.backoff import ReconnectWaits
    from tasklogs.client.client import TaskLogsClient
    from tasklogs.client.credentials import Metadata, Token
    from tasklogs.client.entry import LogEntry
    from tasklogs.client.events import (
        CaughtUp,
        EntriesChanged,
        EntryChange,
        EntryWithdrawn,
        EpochStarted,
        FollowEvent,
        Progress,
        Reconnected,
        Reconnecting,
        StatusChanged,
    )
    from tasklogs.client.follow import Follow
    from tasklogs.client.follow_streams import OnReconnect
    from tasklogs.client.log import TaskLog
    from tasklogs.client.new_entry import Entry
    from tasklogs.client.page import Page
    from tasklogs.client.retry import RetryPolicy
    from tasklogs.client.server_info import ServerInfo, ServerLimits
    from tasklogs.client.sync import SyncFollow, SyncTaskList, SyncTaskLog, SyncTaskLogsClient
    from tasklogs.client.task import (
        AgentFacts,
        AppFacts,
        BuildFacts,
        CreatedTask,
        LogSummary,
        StatusDetail,
        Task,
    )
    from tasklogs.client.task_list import TaskList
    from tasklogs.client.upload import UploadedLog
    from tasklogs.connection.tls import Tls, UnusableTls
    from tasklogs.enums import (
        AgentLifecycle,
        AppHealth,
        BuildTransition,
        JobStatus,
        LogSource,
        TaskLogType,
        TaskStatus,
        TaskView,
    )
    from tasklogs.errors import ClientClosed, TaskLogsRpcError
    from tasklogs.publish.errors import NotStored, PublisherClosed
    from tasklogs.publish.journal import EntrySealed, LogDiverged
    from tasklogs.publish.publisher import AgentToken, OnSync, OpenEntry, Publisher, StoredLog
    from tasklogs.publish.sync import SyncOpenEntry, SyncPublisher
    from tasklogs.status_code import StatusCode

# Imported on first use: grpc and protobuf would slow down `tasklogs --help`.
_HOMES = {
    "tasklogs.client.backoff": ("ReconnectWaits",),
    "tasklogs.client.client": ("TaskLogsClient",),
    "tasklogs.client.credentials": ("Metadata", "Token"),
    "tasklogs.client.entry": ("LogEntry",),
    "tasklogs.client.events": (
        "CaughtUp",
        "EntriesChanged",
        "EntryChange",
        "EntryWithdrawn",
        "EpochStarted",
        "FollowEvent",
        "Progress",
        "Reconnected",
        "Reconnecting",
        "StatusChanged",
    ),
    "tasklogs.client.follow": ("Follow",),
    "tasklogs.client.follow_streams": ("OnReconnect",),
    "tasklogs.client.log": ("TaskLog",),
    "tasklogs.client.page": ("Page",),
    "tasklogs.client.retry": ("RetryPolicy",),
    "tasklogs.client.server_info": ("ServerInfo", "ServerLimits"),
    "tasklogs.client.sync": ("SyncFollow", "SyncTaskList", "SyncTaskLog", "SyncTaskLogsClient"),
    "tasklogs.client.task": (
        "AgentFacts",
        "AppFacts",
        "BuildFacts",
        "CreatedTask",
        "LogSummary",
        "StatusDetail",
        "Task",
    ),
    "tasklogs.client.task_list": ("TaskList",),
    "tasklogs.enums": (
        "AgentLifecycle",
        "AppHealth",
        "BuildTransition",
        "JobStatus",
        "LogSource",
        "TaskLogType",
        "TaskStatus",
        "TaskView",
    ),
    "tasklogs.errors": ("ClientClosed", "TaskLogsRpcError"),
    "tasklogs.client.upload": ("UploadedLog",),
    "tasklogs.client.new_entry": ("Entry",),
    "tasklogs.publish.publisher": (
        "AgentToken",
        "OnSync",
        "OpenEntry",
        "Publisher",
        "StoredLog",
    ),
    "tasklogs.status_code": ("StatusCode",),
    "tasklogs.publish.sync": ("SyncOpenEntry", "SyncPublisher"),
    "tasklogs.publish.errors": (
        "NotStored",
        "PublisherClosed",
    ),
    "tasklogs.publish.journal": (
        "EntrySealed",
        "LogDiverged",
    ),
    "tasklogs.connection.tls": ("Tls", "UnusableTls"),
}
_MODULES = ("errors", "reasons")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AgentFacts",
    "AgentLifecycle",
    "AgentToken",
    "AppFacts",
    "AppHealth",
    "BuildFacts",
    "BuildTransition",
    "CaughtUp",
    "ClientClosed",
    "CreatedTask",
    "EntriesChanged",
    "Entry",
    "EntryChange",
    "EntrySealed",
    "EntryWithdrawn",
    "EpochStarted",
    "Follow",
    "FollowEvent",
    "JobStatus",
    "LogDiverged",
    "LogEntry",
    "LogSource",
    "LogSummary",
    "Metadata",
    "NotStored",
    "OnReconnect",
    "OnSync",
    "OpenEntry",
    "Page",
    "Progress",
    "Publisher",
    "PublisherClosed",
    "ReconnectWaits",
    "Reconnected",
    "Reconnecting",
    "RetryPolicy",
    "ServerInfo",
    "ServerLimits",
    "StatusChanged",
    "StatusCode",
    "StatusDetail",
    "StoredLog",
    "SyncFollow",
    "SyncOpenEntry",
    "SyncPublisher",
    "SyncTaskList",
    "SyncTaskLog",
    "SyncTaskLogsClient",
    "Task",
    "TaskList",
    "TaskLog",
    "TaskLogType",
    "TaskLogsClient",
    "TaskLogsRpcError",
    "TaskStatus",
    "TaskView",
    "Tls",
    "Token",
    "UnusableTls",
    "UploadedLog",
    "errors",
    "reasons",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value
