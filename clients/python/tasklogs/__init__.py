"""The clients of TaskLogs: client library, stubs (v1), log algebra, agent, command line.
Nothing here imports tasklogs_server, except the commands `tasklogs serve` and `tasklogs token`.

    async with TaskLogsClient("127.0.0.1:50051") as client:
        async for event in client.follow("local/demo"):
            ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasklogs.client.backoff import ReconnectWaits
    from tasklogs.client.client import TaskLogsClient
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
    from tasklogs.client.log import TaskLog
    from tasklogs.client.new_entry import Entry
    from tasklogs.client.server_info import ServerInfo, ServerLimits
    from tasklogs.client.sync import SyncFollow, SyncTaskLog, SyncTaskLogsClient
    from tasklogs.client.task import CreatedTask, StatusDetail, Task
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
    from tasklogs.publish.publisher import OpenEntry, Publisher, StoredLog
    from tasklogs.publish.sync import SyncOpenEntry, SyncPublisher

# Imported on first use: grpc and protobuf would slow down `tasklogs --help`.
_HOMES = {
    "tasklogs.client.backoff": ("ReconnectWaits",),
    "tasklogs.client.client": ("TaskLogsClient",),
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
    "tasklogs.client.log": ("TaskLog",),
    "tasklogs.client.server_info": ("ServerInfo", "ServerLimits"),
    "tasklogs.client.sync": ("SyncFollow", "SyncTaskLog", "SyncTaskLogsClient"),
    "tasklogs.client.task": ("CreatedTask", "StatusDetail", "Task"),
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
        "OpenEntry",
        "Publisher",
        "StoredLog",
    ),
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
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AgentLifecycle",
    "AppHealth",
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
    "NotStored",
    "OpenEntry",
    "Progress",
    "Publisher",
    "PublisherClosed",
    "ReconnectWaits",
    "Reconnected",
    "Reconnecting",
    "ServerInfo",
    "ServerLimits",
    "StatusChanged",
    "StatusDetail",
    "StoredLog",
    "SyncFollow",
    "SyncOpenEntry",
    "SyncPublisher",
    "SyncTaskLog",
    "SyncTaskLogsClient",
    "Task",
    "TaskLog",
    "TaskLogType",
    "TaskLogsClient",
    "TaskLogsRpcError",
    "TaskStatus",
    "TaskView",
    "Tls",
    "UnusableTls",
    "UploadedLog",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value
