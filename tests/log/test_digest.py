"""The running digest over the sealed entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log import digest
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tests.log.vectors import vectors

ENTRIES = st.builds(
    Entry,
    id=st.integers(0, 2**31 - 1),
    type=st.sampled_from(EntryType),
    time=st.builds(Time, st.integers(-(2**40), 2**40), st.integers(0, 999_999_999)),
    content=st.text(max_size=10).map(str.encode),
    names=st.builds(Names, *(st.text(max_size=3) for _ in Names._fields)),
)


@pytest.mark.parametrize("subject", ["digest", "digest_with_names"])
def test_it_equals_the_vectors_after_each_entry(subject: str) -> None:
    value = digest.EMPTY
    for vector in vectors()[subject]:
        entry = Entry(
            vector["id"],
            EntryType(vector["type"]),
            Time(vector["seconds"], vector["nanos"]),
            vector["content"].encode(),
            names=Names(*(vector.get(name, "") for name in Names._fields)),
        )
        value = digest.seal(value, entry)
        assert value.hex() == vector["digest"]


def test_an_empty_epoch_has_32_zero_bytes() -> None:
    assert digest.seal_all([]) == bytes(32)


@given(entries=st.lists(ENTRIES, max_size=5), more=st.lists(ENTRIES, max_size=5))
def test_it_continues_from_any_entry(entries: list[Entry], more: list[Entry]) -> None:
    value = digest.seal_all(entries)
    for entry in more:
        value = digest.seal(value, entry)
    assert value == digest.seal_all(entries + more)


@pytest.mark.parametrize(
    "other",
    [
        {"id": 8},
        {"type": EntryType.INPUT},
        {"time": Time(1, 3)},
        {"time": Time(2, 2)},
        {"content": b"y"},
        {"names": Names(source_id="x")},
        {"names": Names(name="x")},
        {"names": Names(call_id="x")},
    ],
    ids=str,
)
def test_it_covers_every_field(other: dict[str, int]) -> None:
    entry = Entry(7, EntryType.OUTPUT, Time(1, 2), b"x")
    changed = replace(entry, **other)  # type: ignore[arg-type]
    assert digest.seal_all([entry]) != digest.seal_all([changed])


def test_it_does_not_cover_truncated_content() -> None:
    entry = Entry(7, EntryType.OUTPUT, Time(1, 2), b"x")
    assert digest.seal_all([entry]) == digest.seal_all([replace(entry, dropped_bytes=131072)])


def test_a_text_under_another_name_is_another_digest() -> None:
    entry = Entry(7, EntryType.TOOL_CALL, Time(1, 2), b"x")
    named = [
        Names("ab", "", ""),
        Names("", "ab", ""),
        Names("", "", "ab"),
        Names("a", "b", ""),
        Names("a", "", "b"),
        Names("", "a", "b"),
    ]
    digests = {digest.seal_all([replace(entry, names=names)]) for names in named}
    assert len(digests) == len(named)
