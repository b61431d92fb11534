"""The verdict on a run: every check over its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.system.soak.checks import follows, held, reads, servers, store
from tests.system.soak.figures import Figures, figures_of
from tests.system.soak.finding import Finding, Kind
from tests.system.soak.ledger import Ledger


@dataclass(frozen=True)
class Verdict:
    """The findings, and figures of how much was checked."""

    findings: list[Finding]
    figures: Figures

    @property
    def is_good(self) -> bool:
        return not self.findings

    def counts(self) -> dict[Kind, int]:
        counted = Counter(finding.kind for finding in self.findings)
        return {kind: counted[kind] for kind in Kind}


def judge(ledger: Ledger) -> Verdict:
    """Check a run against all promises."""
    findings = [finding for check in _CHECKS for finding in check(ledger)]
    return Verdict(findings, figures_of(ledger))


def _ended_well(ledger: Ledger) -> Iterator[Finding]:
    for what in ledger.ending.unsettled:
        yield Finding(Kind.UNSETTLED, "", what)
    for fault in ledger.faults:
        if fault.error is not None:
            yield Finding(Kind.FAULT_FAILED, "", f"no. {fault.number} {fault.name}: {fault.error}")


_CHECKS = (
    store.lost,
    store.lost_after_reads,
    store.lost_at_welcomes,
    store.lost_at_kills,
    store.order,
    store.repeated_contents,
    store.invented,
    reads.stale,
    reads.older_than_acks,
    reads.order,
    reads.answers,
    follows.follows,
    held.delayed,
    servers.sessions,
    servers.leaks,
    servers.calm_reads,
    servers.calm_follows,
    _ended_well,
)
