"""Rows of one task that somebody else holds delay no other task."""

from __future__ import annotations

from collections.abc import Iterator

from tests.system.soak.finding import Finding, Kind
from tests.system.soak.ledger import Ledger, Window

HELD = "rows-held"
"""The name of the fault. The text about it names the held tasks."""
LATE_SECONDS = 1.5
"""Half a second is promised. The rest is for a busy machine."""
# So long before a fault nothing else may have happened. Agents wait so long to connect again.
_QUIET_SECONDS = 15.0


def delayed(ledger: Ledger) -> Iterator[Finding]:
    """While rows are held, and nothing else is wrong, acks of other tasks are about as fast."""
    for fault in ledger.faults:
        if fault.name == HELD and not _others(ledger, fault):
            yield from _delayed_by(ledger, fault)


def _others(ledger: Ledger, fault: Window) -> bool:
    near = ledger.faults_between(fault.began - _QUIET_SECONDS, fault.ended)
    return any(one.number != fault.number for one in near)


def _delayed_by(ledger: Ledger, fault: Window) -> Iterator[Finding]:
    usual_seconds = ledger.slowest_ack_seconds(fault.began - _QUIET_SECONDS, fault.began)
    held = {word.rstrip(",") for word in fault.what.split()}
    for task in ledger.tasks:
        if task.task in held:
            continue
        for append in task.wire.appends:
            if not fault.began <= append.sent < fault.ended - LATE_SECONDS - usual_seconds:
                continue
            acked = append.acked or fault.ended
            if acked - append.sent > usual_seconds + LATE_SECONDS:
                yield Finding(
                    Kind.DELAYED,
                    task.task,
                    f"an append at t={append.sent:.3f} had no ack for"
                    f" {acked - append.sent:.2f} s while {fault.what}",
                )
