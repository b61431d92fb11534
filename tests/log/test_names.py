"""Names that a source gives, as an entry may have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log.entry import MAX_NAME_BYTES, NO_NAMES, Entry, EntryType, Names, Time
from tasklogs.log.names import fitted_names

# Also lone surrogates, which JSON can have and UTF-8 cannot.
NAMES = st.text(st.characters(), max_size=400)


def test_names_that_fit_stay_as_they_are() -> None:
    fitting = "x" * MAX_NAME_BYTES
    assert fitted_names("m1", "bash\n\0", fitting) == Names("m1", "bash\n\0", fitting)


def test_no_names_are_the_shared_ones() -> None:
    assert fitted_names() is NO_NAMES


@pytest.mark.parametrize("character", ["x", "é", "漢", "🎉"])
def test_a_long_name_keeps_its_beginning_and_differs_from_other_long_ones(character: str) -> None:
    long, longer = character * 300, character * 301
    one, other = fitted_names(call_id=long).call_id, fitted_names(call_id=longer).call_id
    assert one != other
    assert long.startswith(one.split("~")[0])
    assert MAX_NAME_BYTES - 3 <= len(one.encode()) <= MAX_NAME_BYTES
    assert fitted_names(call_id=long).call_id == one


@given(NAMES, NAMES, NAMES)
def test_every_name_can_be_sent(source_id: str, name: str, call_id: str) -> None:
    names = fitted_names(source_id, name, call_id)
    assert all(len(text.encode()) <= MAX_NAME_BYTES for text in names)
    assert fitted_names(*names) == names


@given(NAMES, NAMES)
def test_the_size_of_an_entry_has_its_names_in_utf8(source_id: str, name: str) -> None:
    names = fitted_names(source_id, name)
    entry = Entry(0, EntryType.OUTPUT, Time(0, 0), b"123", names=names)
    assert entry.size_bytes == 3 + len(names.source_id.encode()) + len(names.name.encode())
