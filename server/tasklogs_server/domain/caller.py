"""Callers, and which tasks each of them may see."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from tasklogs_server.domain.errors import PermissionDenied, TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskRef


@dataclass(frozen=True, slots=True)
class User:
    """A person or a service. `expires_at`: when its credentials expire; None: never."""

    subject: str
    is_admin: bool = False
    expires_at: datetime | None = None

    @property
    def sees_only(self) -> str | None:
        """The only owner whose tasks this user may see; None: the tasks of all owners."""
        return None if self.is_admin else self.subject

    def owner_of_new(self, owner: str) -> str:
        """Return the owner of a task that this user creates for `owner` ('': for themselves).

        Raises PermissionDenied.
        """
        return self._allowed(owner) or self.subject

    def owner_to_list(self, owner: str) -> str | None:
        """Return whose tasks a list for `owner` has ('': unset); None: the tasks of all owners.

        Raises PermissionDenied.
        """
        return self._allowed(owner) or self.sees_only

    def _allowed(self, owner: str) -> str:
        if owner and not self.is_admin and owner != self.subject:
            raise PermissionDenied("naming another owner requires the tasklogs:admin scope")
        return owner


@dataclass(frozen=True, slots=True)
class Agent:
    """A task's agent. `token_hash`: of the token that it was authenticated with."""

    task_id: UUID
    token_hash: bytes = field(repr=False)


Caller = User | Agent

LOCAL = User("local", is_admin=True)
"""The caller on a server without authentication."""


def visible(ref: TaskRef, sees_only: str | None) -> TaskRef:
    """Restrict a reference to the tasks that the caller may see. This rule is in no other code.

    `sees_only` is the caller's. A task of another owner is not found. For a name, TaskNotFound is
    raised here, whether or not the task exists. For a UUID, the query finds nothing, as for a UUID
    that does not exist.
    """
    if sees_only is None:
        return ref
    if isinstance(ref, TaskId):
        return TaskId(ref.id, sees_only)
    if ref.owner != sees_only:
        raise TaskNotFound(str(ref))
    return ref
