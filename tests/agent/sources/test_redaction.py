"""What `--redact` removes, and what it costs."""

from __future__ import annotations

import time

import pytest

from tasklogs.agent.sources.options import UnusableSource
from tasklogs.agent.sources.redacted_source import _RedactingListener
from tasklogs.agent.sources.redaction import Redactor
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tests.publish.test_journal import OldSession


@pytest.mark.parametrize("pattern", ["(", "(?=a)", r"(a)\1", "x*", "", "a" * 1001])
def test_an_expression_that_cannot_be_used_is_refused(pattern: str) -> None:
    with pytest.raises(UnusableSource, match="--redact"):
        Redactor([pattern])


@pytest.mark.parametrize(
    ("pattern", "redacted"),
    [
        (".", "[redacted]"),
        ("a|ab", "[redacted]b c[redacted]b"),
        ("(a)(b) ", "[redacted]cab"),
        (r"\bab\b", "[redacted] cab"),
        (r"\Qab c", "[redacted]ab"),
        ("(?i)A", "[redacted]b c[redacted]b"),
    ],
)
def test_matches_that_touch_become_one(pattern: str, redacted: str) -> None:
    assert Redactor([pattern]).text("ab cab") == redacted


def test_an_expression_for_each_character_is_cheap() -> None:
    """A megabyte took 3 s. It holds up everything else that the agent does."""
    began = time.process_time()
    assert Redactor(["."]).utf8(b"a" * MAX_CONTENT_BYTES) == b"[redacted]"
    assert time.process_time() - began < 0.5


def test_a_lone_surrogate_is_written_as_in_other_content() -> None:
    assert Redactor(["b"]).text("a\ud800b") == "a\ufffd[redacted]"


def test_an_entry_that_grows_by_redaction_stays_within_the_limit() -> None:
    content = b"aaaa " * (MAX_CONTENT_BYTES // 5 - 1000)
    listener = _RedactingListener(OldSession(), Redactor(["aaaa"]))
    entry = Entry(0, EntryType.OUTPUT, Time(1, 0), content)
    redacted = listener.fitted(entry)
    assert redacted is not None
    assert len(redacted.content) <= MAX_CONTENT_BYTES
    assert redacted.dropped_bytes > 0
    assert redacted.content.endswith(b"[redacted] [redacted] ")
    assert listener.fitted(entry) == redacted
