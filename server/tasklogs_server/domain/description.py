"""What callers say about a task: when they create it, and when they update it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from tasklogs_server.domain.errors import EtagMismatch

_ETAG_BYTES = 12


class TaskView(StrEnum):
    """How much of a task is read: BASIC is everything but the prompt."""

    BASIC = "BASIC"
    FULL = "FULL"


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to create. `request_id`: the caller's own id of this creation, for its retries."""

    owner: str
    name: str
    display_name: str = ""
    prompt: str = ""
    standalone: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: UUID | None = None

    @property
    def arguments_hash(self) -> bytes:
        """Equal for two creations of an owner if all of their arguments are equal."""
        return _hash(
            [self.name, self.display_name, self.prompt, self.standalone, _sorted(self.labels)]
        )


@dataclass(frozen=True, slots=True)
class Description:
    """What an update can change."""

    display_name: str
    labels: Mapping[str, str]

    @property
    def etag(self) -> str:
        """A short text that differs for different descriptions."""
        digest = _hash([self.display_name, _sorted(self.labels)])
        return base64.urlsafe_b64encode(digest[:_ETAG_BYTES]).decode()


@dataclass(frozen=True, slots=True)
class DescriptionChange:
    """A change of a description. None: no change. `etag`: of the description that it is for."""

    display_name: str | None = None
    labels: Mapping[str, str] | None = None
    etag: str | None = None

    def apply(self, current: Description) -> Description:
        """Return the description after the change. Raises EtagMismatch."""
        if self.etag is not None and self.etag != current.etag:
            raise EtagMismatch
        return Description(
            current.display_name if self.display_name is None else self.display_name,
            current.labels if self.labels is None else self.labels,
        )


def _sorted(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(labels.items())


def _hash(values: list[object]) -> bytes:
    # JSON keeps the values apart: no two lists have the same text.
    return hashlib.sha256(json.dumps(values).encode()).digest()
