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
_COMMITS = f"{_SERVER}/store/commit_statements.py"
_LOG_WRITES = f"{_SERVER}/store/log_writes.py"
_RECORDS = f"{_SERVER}/store/records.py"
_FEED = f"{_SERVER}/reads/feed.py"
_FOLLOWER = f"{_SERVER}/reads/follower.py"
_READER = f"{_SERVER}/reads/reader.py"
_SYNCED = f"{_SERVER}/domain/synced.py"

MODELS = (
    Model(
        "sessions",
        (
            {"SESSIONS": 2, "CHANGES": 2, "FAILOVERS": 1},
            {"SESSIONS": 3, "CHANGES": 2, "FAILOVERS": 1},
            {"SESSIONS": 2, "CHANGES": 2, "FAILOVERS": 2},
            {"SESSIONS": 1, "CHANGES": 3, "FAILOVERS": 1, "WITHHELD": 1},
        ),
    ),
    Model(
        "follows",
        (
            {"CHANGES": 2, "RESUMES": 1, "FAILOVERS": 1},
            {"CHANGES": 2, "RESUMES": 1, "FAILOVERS": 2},
            {"CHANGES": 4, "RESUMES": 1, "FAILOVERS": 0},
        ),
    ),
    Model(
        "live_reads",
        (
            {"READS": 1, "SHOWN": 1, "FAILOVERS": 1},
            {"READS": 2, "SHOWN": 1, "FAILOVERS": 0, "OPENS": 1},
            {"READS": 1, "SHOWN": 2, "FAILOVERS": 0, "ENDS": 1},
        ),
    ),
)

GUARDS = (
    Guard("sessions", "RAISES_FENCE", "I4", _STORE_SESSIONS, "SET fence = fence +"),
    Guard(
        "sessions",
        "FENCE_JUMPS",
        "I4",
        _STORE_SESSIONS,
        "SET fence = fence + greatest({GENERATION_GAP} * {_GAPS}, 1),",
    ),
    Guard(
        "sessions",
        "REVISION_JUMPS",
        "I9",
        _STORE_SESSIONS,
        "revision = revision + {GENERATION_GAP} * {_GAPS},",
    ),
    Guard("sessions", "COMPARES_FENCE", "I4", _COMMITS, "AND h.fence = :fence"),
    Guard(
        "sessions",
        "COMPARES_BASE_REVISION",
        "I4",
        _COMMITS,
        "AND h.revision = :base_revision",
        {"SESSIONS": 1, "WITHHELD": 1},
        "If the generation is told, a store that went back differs in it, too.",
    ),
    Guard(
        "sessions",
        "COMPARES_GENERATION_OF_HEAD",
        None,
        _COMMITS,
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
        "writable = [one for one in ordered if one.head.generation == current]",
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
    Guard(
        "sessions",
        "GAP_PER_TIMELINE",
        "I4",
        _STORE_SESSIONS,
        "ELSE least(greatest({_TIMELINES}, 1), 100)",
        {"FAILOVERS": 2},
    ),
    Guard(
        "follows",
        "COMMITS_BEFORE_NOTE",
        "I5",
        f"{_SERVER}/ingest/batches.py",
        "self._bus.publish(Moved(commit.task_id, commit))",
    ),
    Guard(
        "follows",
        "REVISION_JUMPS",
        "I9",
        _STORE_SESSIONS,
        "revision = revision + {GENERATION_GAP} * {_GAPS},",
    ),
    Guard(
        "follows",
        "GAP_PER_TIMELINE",
        "I9",
        _STORE_SESSIONS,
        "ELSE least(greatest({_TIMELINES}, 1), 100)",
        {"FAILOVERS": 2},
    ),
    Guard(
        "follows",
        "COVERS_BORDERS",
        "I9",
        _STORE_SESSIONS,
        "CROSS JOIN generate_series(0, least(number, 1)) AS edge (below)",
        {"FAILOVERS": 2},
    ),
    Guard(
        "follows",
        "EXPIRES_IN_GAP",
        "I9",
        _RECORDS,
        "last < revision < last + GENERATION_GAP for last in lost_after",
    ),
    Guard(
        "follows",
        "EXPIRES_ABOVE_HEAD",
        "I9",
        _RECORDS,
        "return revision > head_revision or any(",
    ),
    Guard(
        "follows",
        "CHECKS_CURSOR_AT_START",
        "I9",
        _FOLLOWER,
        "if task.head.has_lost(query.cursor.revision):",
    ),
    Guard(
        "follows",
        "CHECKS_CURSOR_OF_LAG",
        "I9",
        _FOLLOWER,
        "if read.task.head.has_lost(revision):",
    ),
    Guard(
        "follows",
        "CHECKS_REVISION_OF_FEED",
        "I9",
        _FEED,
        "if read.task.head.has_lost(self.revision):",
        {"GENERATION_ENDS_FOLLOWS": 0},
    ),
    Guard(
        "follows",
        "GENERATION_ENDS_FOLLOWS",
        "I8",
        _FOLLOWER,
        "generations.on_change(self._generation_changed)",
    ),
    Guard(
        "follows",
        "CHECKS_GENERATION_AT_START",
        "I8",
        _FOLLOWER,
        "if self._generations.current != generation:",
    ),
    Guard(
        "follows",
        "COMMIT_BUILDS_ON_FEED",
        "I8",
        _FEED,
        "or commit.base_revision != self.revision",
    ),
    Guard(
        "follows",
        "NO_COMMIT_DURING_READ",
        "I8",
        _FEED,
        "            self._is_reading\n",
    ),
    Guard(
        "follows",
        "STEP_BEGINS_AT_FOLLOWER",
        "I8",
        _FEED,
        "if last.after == revision:",
    ),
    Guard(
        "follows",
        "DELTA_ONLY_ON_ITS_BASE",
        "I8",
        _FOLLOWER,
        "and ready.last_sent == base",
    ),
    Guard(
        "follows",
        "POLLS",
        "I8",
        _FEED,
        "async with asyncio.timeout(self._poll_seconds):",
    ),
    Guard(
        "follows",
        "RESUMES_AT_CURSOR",
        "I8",
        _FOLLOWER,
        "return task, query.cursor.revision",
    ),
    Guard(
        "live_reads",
        "SYNC_RESTS_ON_APPENDS",
        "I6",
        f"{_SERVER}/ingest/session.py",
        "rests_on=window.received_sequence,",
    ),
    Guard(
        "live_reads",
        "AGENT_SENDS_BEFORE_ANSWER",
        "I6",
        "clients/python/tasklogs/publish/session.py",
        "while self._answers and (self._answers[0].reason or not self._differ.has_changes):",
    ),
    Guard(
        "live_reads",
        "JOINS_ONLY_LATER_SYNCS",
        "I6",
        f"{_SERVER}/concurrency/singleflight.py",
        "if current.next is None:",
        {"READS": 2, "FAILOVERS": 0, "OPENS": 1},
    ),
    Guard(
        "live_reads",
        "SYNCED_NAMES_ITS_REQUEST",
        "I6",
        f"{_SERVER}/ingest/sync_table.py",
        "self._last_id += 1",
        {"READS": 2, "FAILOVERS": 0, "OPENS": 1},
    ),
    Guard(
        "live_reads",
        "SYNCED_HAS_FENCE",
        "I10",
        _SYNCED,
        "stored.fence == self.fence",
    ),
    Guard(
        "live_reads",
        "SYNCED_HAS_REVISION",
        "I10",
        _SYNCED,
        "and stored.revision >= self.revision",
    ),
    Guard(
        "live_reads",
        "KNOWN_HAS_ALL",
        "I10",
        _READER,
        "has_all = synced.is_held_by(known.stored)",
    ),
    Guard(
        "live_reads",
        "KNOWN_IS_CURRENT",
        "I10",
        _READER,
        "if has_all and self._is_current(known):",
    ),
    Guard(
        "live_reads",
        "CHECKS_AFTER_READ",
        "I10",
        _READER,
        "if synced.is_held_by(state.stored):",
    ),
)
