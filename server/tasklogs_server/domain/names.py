"""How callers name a task: by its UUID, or as `owner/name`."""

import re
import unicodedata
from dataclasses import dataclass, field
from uuid import UUID

from tasklogs_server.domain.errors import FieldViolation, InvalidFields

MAX_OWNER_CHARACTERS = 255

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

# Control characters, lone surrogates, line and paragraph separators. Postgres' text refuses some of
# them, and an error's message must stay on one line.
_UNFIT_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})

# Unicode's property Default_Ignorable_Code_Point, and annotation controls: nothing is shown, so two
# owners would look the same.
_HIDDEN = re.compile(
    r"[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True, slots=True)
class TaskId:
    """A task by its UUID; with `owner`, only if that owner owns it."""

    id: UUID
    owner: str | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.id.int, self.owner)))

    def __hash__(self) -> int:
        return self._hash  # to compute it anew costs as much as all else of a look-up

    def __str__(self) -> str:
        return str(self.id)


@dataclass(frozen=True, slots=True)
class TaskName:
    """A task by its owner and its name, which is unique per owner."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


TaskRef = TaskId | TaskName


def parse_uuid(text: str) -> UUID | None:
    """Return the UUID that `text` is, in upper or lower case; None if it is none."""
    # UUID() alone also accepts braces, "urn:uuid:" and hyphens in any position.
    return UUID(text) if _UUID.fullmatch(text) else None


def parse_task_ref(text: str) -> TaskRef:
    """Parse a reference to a task, which may not exist. Raises InvalidFields for `task`."""
    task_id = parse_uuid(text)
    if task_id is not None:
        return TaskId(task_id)
    # An owner may contain slashes, a name may not.
    owner, slash, name = text.rpartition("/")
    if not slash:
        raise InvalidFields([FieldViolation("task", "must be a task's UUID or owner/name")])
    violations = [*owner_violations(owner, "task"), *task_name_violations(name, "task")]
    if violations:
        raise InvalidFields(violations)
    return TaskName(owner, name)


def validate_task_name(name: str) -> None:
    """Raise InvalidFields for `name` unless it is a valid name of a task."""
    violations = task_name_violations(name)
    if violations:
        raise InvalidFields(violations)


def task_name_violations(name: str, field: str = "name") -> list[FieldViolation]:
    """Return what is wrong with a task's name, as violations of `field`."""
    # fullmatch, because `$` also matches before a trailing newline.
    if _NAME.fullmatch(name):
        return []
    return [FieldViolation(field, f"the task's name must match {_NAME.pattern}")]


def owner_violations(owner: str, field: str = "owner") -> list[FieldViolation]:
    """Return what is wrong with an owner or a subject, as violations of `field`."""
    if not 1 <= len(owner) <= MAX_OWNER_CHARACTERS:
        wanted = f"the owner must have 1 to {MAX_OWNER_CHARACTERS} characters"
        return [FieldViolation(field, wanted)]
    if not is_one_line(owner):
        return [FieldViolation(field, "the owner must not contain control characters")]
    return []


def new_owner_violations(owner: str, field: str = "owner") -> list[FieldViolation]:
    """Return why `owner` may not own a new task, as violations of `field`.

    Stricter than `owner_violations`: an owner with hidden characters can still read and delete the
    tasks that it has.
    """
    violations = owner_violations(owner, field)
    hidden = next(filter(_is_hidden, owner), None)
    if violations or hidden is None:
        return violations
    what = f"the owner must not contain hidden characters (U+{ord(hidden):04X})"
    return [FieldViolation(field, what)]


def _is_hidden(character: str) -> bool:
    return bool(_HIDDEN.match(character)) or unicodedata.category(character) == "Cf"


def is_one_line(text: str) -> bool:
    """Whether `text` has no control characters and no line breaks. Joiners (emoji) are allowed."""
    return not any(unicodedata.category(character) in _UNFIT_CATEGORIES for character in text)
