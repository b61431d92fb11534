"""What callers say about a task: the hash of a creation, the etag, the change."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tasklogs_server.domain.description import Description, DescriptionChange, NewTask
from tasklogs_server.domain.errors import EtagMismatch

NEW = NewTask("local", "demo", "Demo", "do it", standalone=True, labels={"a": "1", "b": "2"})
OLD = Description("Demo", {"a": "1", "b": "2"})


def test_the_order_of_labels_and_the_id_itself_do_not_count() -> None:
    same = replace(NEW, labels={"b": "2", "a": "1"}, request_id=UUID(int=1))

    assert same.arguments_hash == NEW.arguments_hash
    assert replace(OLD, labels={"b": "2", "a": "1"}).etag == OLD.etag


def test_each_argument_counts() -> None:
    others = [
        NEW,
        replace(NEW, name="demo2"),
        replace(NEW, display_name="do it", prompt="Demo"),
        replace(NEW, display_name="", prompt="Demodo it"),
        replace(NEW, standalone=False),
        replace(NEW, labels={"a": "2", "b": "1"}),
        replace(NEW, labels={"a": "1"}),
        replace(NEW, labels={}),
        replace(NEW, prompt="do it\0"),
    ]

    assert len({one.arguments_hash for one in others}) == len(others)


def test_the_hashes_stay_the_same_in_later_versions() -> None:
    """A retry may meet a later version, and an etag is kept by clients."""
    assert NEW.arguments_hash.hex() == (
        "be08548a34f0f7b0b6146bbe06fbfce3163c5add8cb88006e41a89e99935471f"
    )
    assert OLD.etag == "zfSG4l-tJ_EANR4A"


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (DescriptionChange(), OLD),
        (DescriptionChange(display_name=""), replace(OLD, display_name="")),
        (DescriptionChange(labels={}), replace(OLD, labels={})),
        (DescriptionChange("x", {"c": ""}, OLD.etag), Description("x", {"c": ""})),
    ],
)
def test_a_change_replaces_what_it_names(change: DescriptionChange, after: Description) -> None:
    assert change.apply(OLD) == after


@pytest.mark.parametrize("etag", ["x", OLD.etag[:-1], OLD.etag.upper()])
def test_a_change_of_another_description_is_refused(etag: str) -> None:
    with pytest.raises(EtagMismatch):
        DescriptionChange("x", etag=etag).apply(OLD)
