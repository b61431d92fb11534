"""Labels of tasks: what is valid, and how a list selects tasks by them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasklogs_server.domain.errors import FieldViolation
from tasklogs_server.domain.names import is_one_line

MAX_LABELS = 64
MAX_VALUE_CHARACTERS = 255
MAX_SELECTORS = 16

_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Selects the tasks that have a label of this key. `value` None: with any value."""

    key: str
    value: str | None


def label_violations(labels: Mapping[str, str]) -> list[FieldViolation]:
    """Return what is wrong with the labels of a task, each fault once."""
    if len(labels) > MAX_LABELS:  # they are not looked at: a request can have half a million
        return [FieldViolation("labels", f"a task has at most {MAX_LABELS} labels")]
    faults = [fault for key, value in labels.items() for fault in _faults(key, value)]
    return [FieldViolation("labels", fault) for fault in dict.fromkeys(faults)]


def parse_selectors(texts: Sequence[str], violations: list[FieldViolation]) -> list[LabelSelector]:
    """Parse `key=value` and `key`. What is malformed adds violations of `labels`."""
    if len(texts) > MAX_SELECTORS:
        what = f"a list selects by at most {MAX_SELECTORS} labels"
        violations.append(FieldViolation("labels", what))
        return []
    faults = []
    selectors = []
    for text in texts:
        key, equals, value = text.partition("=")
        faults += _faults(key, value)
        selectors.append(LabelSelector(key, value if equals else None))
    violations += [FieldViolation("labels", fault) for fault in dict.fromkeys(faults)]
    return selectors


def _faults(key: str, value: str) -> list[str]:
    faults = []
    if not _KEY.fullmatch(key):
        faults.append(f"the key of a label must match {_KEY.pattern}")
    if len(value) > MAX_VALUE_CHARACTERS:
        faults.append(f"the value of a label has at most {MAX_VALUE_CHARACTERS} characters")
    elif not is_one_line(value):
        faults.append("the value of a label must not contain control characters")
    return faults
