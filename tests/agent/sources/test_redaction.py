"""What `--redact` removes, and what it costs."""

from __future__ import annotations

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


def test_a_lone_surrogate_is_written_as_in_other_content() -> None:
    assert Redactor(["b"]).text("a\ud800b") == "a\ufffd[redacted]"


def test_an_entry_that_grows_by_redaction_stays_within_the_limit() -> None:
    content = b"a" * (MAX_CONTENT_BYTES - 1000)
    listener = _RedactingListener(OldSession(), Redactor(["aaaaa"]))
    entry = Entry(0, EntryType.OUTPUT, Time(1, 0), content)
    redacted = listener.fitted(entry)
    assert redacted is not None
    assert len(redacted.content) <= MAX_CONTENT_BYTES
    assert redacted.dropped_bytes > 0
    assert redacted.content.endswith(b"[redacted]a")
    assert listener.fitted(entry) == redacted
