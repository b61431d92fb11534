"""The fields of an encoded message are found where protobuf finds them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs_server.wire.fields import Runs, fields, has_more_fields, varint

ENTRIES = 0x1A


def request(contents: list[str]) -> bytes:
    message = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_ENTRIES)
    for index, content in enumerate(contents):
        message.entries.add(id=index, content=content)
    return message.SerializeToString()


@given(st.lists(st.text(max_size=300), max_size=20))
def test_fields_follow_each_other_and_hold_the_submessages(contents: list[str]) -> None:
    encoded = request(contents)
    found = list(fields(encoded, 0, len(encoded)))
    assert [first for _, first, _, _ in found] == [0, *(end for *_, end in found[:-1])]
    assert found[-1][3] == len(encoded)
    kind = pb.UploadLogSnapshotRequest().entries.add
    decoded = [type(kind()).FromString(encoded[b:e]) for t, _, b, e in found if t == ENTRIES]
    assert [one.content for one in decoded] == contents


@given(st.binary(max_size=60))
def test_any_bytes_have_fields_or_cannot_be_decoded(encoded: bytes) -> None:
    try:
        found = list(fields(encoded, 0, len(encoded)))
    except DecodeError:
        return
    assert all(first < begin <= end <= len(encoded) for _, first, begin, end in found)


@pytest.mark.parametrize(
    "encoded",
    [b"\x0a", b"\x0a\x05abc", b"\x09\0\0", b"\x0b\x0c", b"\0\0", b"\x08", b"\x08" + b"\xff" * 11],
    ids=repr,
)
def test_what_is_cut_off_or_no_field_cannot_be_decoded(encoded: bytes) -> None:
    with pytest.raises(DecodeError):
        list(fields(encoded, 0, len(encoded)))


def test_a_field_does_not_reach_beyond_its_message() -> None:
    with pytest.raises(DecodeError):
        list(fields(b"\x0a\x03abc", 0, 3))


def test_fields_are_counted_up_to_the_limit() -> None:
    encoded = request(["a", "b"])
    assert not has_more_fields(encoded, 3)
    assert has_more_fields(encoded, 2)
    assert has_more_fields(encoded + b"\x0b", 2)  # what comes later is not looked at


def test_a_varint_has_at_most_ten_bytes() -> None:
    assert varint(b"\xac\x02", 0) == (300, 2)
    with pytest.raises(DecodeError):
        varint(b"\x80" * 10 + b"\x01", 0)


@given(st.lists(st.integers(0, 300), max_size=50))
def test_runs_are_whole_fields_that_follow_each_other(sizes: list[int]) -> None:
    encoded = request(["x" * size for size in sizes])
    runs = Runs(fields=7, size_bytes=400)
    entries = [one for one in fields(encoded, 0, len(encoded)) if one[0] == ENTRIES]
    for one in entries:
        runs.add(one)

    joined = [pb.UploadLogSnapshotRequest.FromString(encoded[b:e]).entries for b, e in runs.all]
    assert [len(one.content) for run in joined for one in run] == sizes
    assert runs.fields == len(sizes)
    assert all(len(run) <= 7 for run in joined)
    assert all(e - b <= 400 for b, e in runs.all)
    assert all(end == begin for (_, end), (begin, _) in pairwise(runs.all))
