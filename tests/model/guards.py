"""The models, and the guards of the code that they have as macros.

Each guard names its line of the code. `test_guards.py` checks that the table matches the code and
the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Model:
    """A file `NAME.pml`, and the sizes in which it is explored: macros with their values."""

    name: str
    sizes: tuple[Mapping[str, int], ...]


@dataclass(frozen=True)
class Guard:
    """A line of the code that keeps a rule. Without it, the model must find the rule broken.

    `rule` None: other guards back this one up, and the model must not find anything. `why` says
    which ones.
    """

    model: str
    macro: str
    rule: str | None
    path: str
    line: str
    """Found in the file at least once."""
    size: Mapping[str, int] = field(default_factory=dict)
    """Macros besides those of the first size, also of guards that are removed with this one."""
    why: str = ""


_SERVER = "server/tasklogs_server"
_SESSIONS = f"{_SERVER}/ingest/sessions.py"
_STORE_SESSIONS = f"{_SERVER}/store/sessions.py"
_LOG_WRITES = f"{_SERVER}/store/log_writes.py"

MODELS = (
    Model(
        "sessions",
        (
            {"SESSIONS": 3, "CHANGES": 2, "FAILOVERS": 1},
            {"SESSIONS": 2, "CHANGES": 2, "FAILOVERS": 2},
            {"SESSIONS": 1, "CHANGES": 3, "FAILOVERS": 1, "WITHHELD": 1},
        ),
    ),
)

GUARDS = (
    Guard("sessions", "RAISES_FENCE", "I4", _STORE_SESSIONS, "SET fence = fence + CASE"),
    Guard(
        "sessions",
        "FENCE_JUMPS",
        "I4",
        _STORE_SESSIONS,
        "SET fence = fence + CASE WHEN generation = $2 THEN 1 ELSE {GENERATION_GAP} END,",
    ),
    Guard(
        "sessions",
        "REVISION_JUMPS",
        "I9",
        _STORE_SESSIONS,
        "revision = CASE WHEN generation = $2 THEN revision ELSE revision + {GENERATION_GAP} END,",
    ),
    Guard("sessions", "COMPARES_FENCE", "I4", _LOG_WRITES, "AND h.fence = :fence"),
    Guard(
        "sessions",
        "COMPARES_BASE_REVISION",
        "I4",
        _LOG_WRITES,
        "AND h.revision = :base_revision",
        {"SESSIONS": 1, "WITHHELD": 1},
        "If the generation is told, a store that went back differs in it, too.",
    ),
    Guard(
        "sessions",
        "COMPARES_GENERATION_OF_HEAD",
        None,
        _LOG_WRITES,
        "AND h.generation = :generation",
        why="The statement that changes the generation raises the fence. So the commit is refused"
        " anyway. The generation decides what the agent is told: SESSION_LOST, not"
        " SESSION_SUPERSEDED, so it comes back at once.",
    ),
    Guard(
        "sessions",
        "COMPARES_GENERATION_OF_CONNECTION",
        "I9",
        _LOG_WRITES,
        "[_arguments(one) for one in ordered if one.head.generation == current]",
    ),
    Guard(
        "sessions",
        "REVISION_FOR_EACH_CHANGE",
        "I2",
        f"{_SERVER}/ingest/draft.py",
        "            self._revision += 1",
    ),
    Guard(
        "sessions",
        "ACKS_AFTER_COMMIT",
        "I3",
        f"{_SERVER}/ingest/session.py",
        "        seen_at = self._acknowledge()",
    ),
    Guard(
        "sessions",
        "UNDECIDED_IS_NOT_ACKED",
        "I3",
        f"{_SERVER}/ingest/batches.py",
        "                    _leave_undecided(writer)",
    ),
    Guard(
        "sessions",
        "FENCED_ENDS_SESSION",
        "I3",
        f"{_SERVER}/ingest/batches.py",
        "            return SessionSuperseded()",
    ),
    Guard(
        "sessions",
        "GENERATION_ENDS_SESSIONS",
        "I9",
        _SESSIONS,
        "self._generations.on_change(self._generation_changed)",
    ),
    Guard(
        "sessions",
        "CHECKS_HANDSHAKE",
        "I9",
        _SESSIONS,
        "if session.generation != self._generations.current:",
    ),
    Guard(
        "sessions",
        "KEEPS_HIGHER_FENCE",
        "I4",
        _SESSIONS,
        "if current is not None and current.fence > session.fence:",
    ),
    Guard(
        "sessions",
        "REFUSES_FORMER_PRIMARY",
        "I9",
        f"{_SERVER}/store/generations.py",
        "if generation is None or _is_older(generation, self._current):",
    ),
    Guard(
        "sessions",
        "AUDITS",
        "I10",
        f"{_SERVER}/store/session_audit.py",
        "OR head.fence IS DISTINCT FROM held.fence",
    ),
)
