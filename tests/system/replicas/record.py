"""What agents, followers and readers told, and the figures that follow from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Read:
    """When a read began, how long it took, and `OK` or the code and reason of its refusal."""

    began: float
    seconds: float
    ended: str
    is_live: bool


@dataclass
class Record:
    """Times are those of time.monotonic, which all processes share."""

    welcomes: dict[int, float] = field(default_factory=dict)
    """When each agent's last Welcome came."""
    followed: dict[int, float] = field(default_factory=dict)
    """When each follower's last stream began to bring something."""
    losses: list[tuple[float, str, int, str]] = field(default_factory=list)
    """When an agent or a follower lost its stream, which, and how it ended."""
    said: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When each entry of a task was said."""
    got: dict[int, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    """The ids of the entries that a follower got, and when."""
    reads: list[Read] = field(default_factory=list)

    def heard(self, line: str) -> None:
        """Note a line of a crowd."""
        at, what, number, detail = line.split(maxsplit=3)
        time, task = float(at), int(number)
        match what:
            case "welcome":
                self.welcomes[task] = time
            case "followed":
                self.followed[task] = time
            case "said":
                self.said[task].append(time)
            case "got":
                self.got[task].append((int(detail), time))
            case _:
                self.losses.append((time, what, task, detail.strip()))

    def all_have_all(self, count: int) -> bool:
        """Whether every follower got everything that its agent said."""
        return all(len(self.got[one]) >= len(self.said[one]) > 0 for one in range(count))

    def wrong(self) -> Sequence[int]:
        """The tasks whose followers did not get each entry once, in order."""
        return [
            task
            for task, times in self.said.items()
            if [id_ for id_, _ in self.got[task]] != list(range(len(times)))
        ]


@dataclass(frozen=True)
class Rank:
    """Seconds: the median, the 99th percentile and the longest of so many."""

    count: int
    median: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Rank:
        """Rank any number of lengths of time."""
        ordered = sorted(seconds)
        if not ordered:
            return cls(0, 0.0, 0.0, 0.0)
        last = len(ordered) - 1
        return cls(len(ordered), ordered[last // 2], ordered[last * 99 // 100], ordered[last])

    def __str__(self) -> str:
        return (
            f"{self.count}: median {self.median:.2f} s, 99 % {self.p99:.2f} s,"
            f" last {self.longest:.2f} s"
        )


@dataclass(frozen=True)
class Outcome:
    """What the loss of a replica cost, in seconds from its end."""

    agents: Rank
    """Until the agents that lost their streams were welcome again."""
    followers: Rank
    """Until the followers that lost their streams had a stream again."""
    changes_before: Rank
    changes: Rank
    """From what an agent said to its follower, before the loss and after it."""
    lost_streams: Mapping[str, int]
    reads: Mapping[str, int]
    """The reads after the loss, by how they ended."""
    refused_until: float
    """When the last read that was refused ended."""
    slowest_read: float
    wrong: Sequence[int]

    @classmethod
    def of(cls, record: Record, gone_at: float) -> Outcome:
        """Return the figures. `gone_at`: when the replica was told to end, or was killed."""
        lost = [one for one in record.losses if one[0] >= gone_at]
        agents = {task for _, what, task, _ in lost if what == "agent_lost"}
        followers = {task for _, what, task, _ in lost if what == "follow_lost"}
        after = [one for one in record.reads if one.began + one.seconds >= gone_at]
        refused = [one.began + one.seconds for one in after if one.ended != "OK"]
        return cls(
            agents=Rank.of(record.welcomes[one] - gone_at for one in agents),
            followers=Rank.of(record.followed[one] - gone_at for one in followers),
            changes_before=Rank.of(_latencies(record, gone_at, is_after=False)),
            changes=Rank.of(_latencies(record, gone_at, is_after=True)),
            lost_streams=Counter(f"{what} {detail}" for _, what, _, detail in lost),
            reads=Counter(f"{'live' if one.is_live else 'stored'} {one.ended}" for one in after),
            refused_until=max(refused, default=gone_at) - gone_at,
            slowest_read=max((one.seconds for one in after), default=0.0),
            wrong=record.wrong(),
        )

    def __str__(self) -> str:
        return "\n".join(
            (
                f"  agents welcome again, {self.agents}",
                f"  followers continued, {self.followers}",
                f"  changes to followers before, {self.changes_before}",
                f"  changes to followers after, {self.changes}",
                f"  streams ended: {dict(self.lost_streams)}",
                f"  reads: {dict(self.reads)}, the last refused after {self.refused_until:.2f} s,"
                f" the longest took {self.slowest_read:.2f} s",
                f"  followers that missed an entry or got one twice: {len(self.wrong)}",
            )
        )


def _latencies(record: Record, gone_at: float, *, is_after: bool) -> Iterable[float]:
    for task, got in record.got.items():
        for id_, at in got:
            said_at = record.said[task][id_]
            if (said_at >= gone_at) is is_after:
                yield at - said_at
