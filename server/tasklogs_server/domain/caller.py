"""Who calls, and which tasks are theirs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from tasklogs_server.domain.errors import PermissionDenied, TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskRef


@dataclass(frozen=True, slots=True)
class User:
    """A person or a service. `expires_at`: when what proved it ends to hold; None: never."""

    subject: str
    is_admin: bool = False
    expires_at: datetime | None = None

    @property
    def sees_only(self) -> str | None:
        """The owner whose tasks alone this user may see; None: everyone's."""
        return None if self.is_admin else self.subject

    def owner_of_new(self, owner: str) -> str:
        """Return who owns a task that this user creates for `owner` ('': for themselves).

        Raises PermissionDenied.
        """
        return self._allowed(owner) or self.subject

    def owner_to_list(self, owner: str) -> str | None:
        """Return whose tasks are listed where `owner` is asked for ('': unset); None: everyone's.

        Raises PermissionDenied.
        """
        return self._allowed(owner) or self.sees_only

    def _allowed(self, owner: str) -> str:
        if owner and not self.is_admin and owner != self.subject:
            raise PermissionDenied("only an admin may name another owner")
        return owner


@dataclass(frozen=True, slots=True)
class Agent:
    """A task's agent, with the token that opened the door for it."""

    task_id: UUID
    token_hash: bytes = field(repr=False)


Caller = User | Agent

LOCAL = User("local", is_admin=True)
"""Whoever calls a server without authentication."""


def visible(ref: TaskRef, sees_only: str | None) -> TaskRef:
    """Return the reference by which the task is found only if it may be seen: the one such rule.

    `sees_only` is the caller's. Another's task is not found: by its name at once, whether there is
    one or not; by its UUID through the same query as one that does not exist. Raises TaskNotFound.
    """
    if sees_only is None:
        return ref
    if isinstance(ref, TaskId):
        return TaskId(ref.id, sees_only)
    if ref.owner != sees_only:
        raise TaskNotFound(str(ref))
    return ref
