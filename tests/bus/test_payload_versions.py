"""Servers of two versions understand each other's notes: the text of each kind is recorded here.

In a rolling upgrade both run on one bus. A new field may follow the others of its kind, and kinds
may be added. A recorded text may only change if no server of a version that sends it can meet one
of this version.
"""

from __future__ import annotations

import json

import pytest

from tasklogs_server.bus.payloads import decode, encode, head

SENDER = "6f1c2a9e5b4d4c0e8a7f3d2b1c0e9f8a"
TASK = "0190f3c27b3a7e6d8c5b4a3928171605"
OTHER = "0190f3c27b3a7e6d8c5b4a3928171606"
TEXTS = {
    "joined": '["joined",true]',
    "welcome": '["welcome"]',
    "joined, of a server": '["joined",false,"a-host",17,"0.1.0"]',
    "welcome, of a server": '["welcome","a-host",17,"0.1.0"]',
    "left": '["left"]',
    "missed": '["missed"]',
    "all": '["all"]',
    "beat": f'["beat",{{"{OTHER}":7}}]',
    "beat of one that sent nothing": '["beat",{}]',
    "follows": f'["follows",["{TASK}"],["{OTHER}"]]',
    "follows_all": f'["follows_all",["{TASK}","{OTHER}"],false]',
    "moved": f'["moved","{TASK}",4294967297]',
    "moved without a revision": f'["moved","{TASK}",null]',
    "deleted": f'["deleted","{TASK}"]',
    "doubted": f'["doubted","{TASK}"]',
    "build": f'["build","{TASK}"]',
    "session": f'["session","{TASK}",3]',
    "sync": f'["sync",12,"{TASK}",3,0.5]',
    "sync from now": f'["sync",12,"{TASK}",3,null]',
    "synced": '["synced",12,["2026-11-30T21:00:00.123456+00:00",3,99,2],null]',
    "synced without a build": '["synced",12,["2026-11-30T21:00:00+00:00",3,99,null],null]',
    "synced in vain": '["synced",12,null,"connection refused"]',
}


def payload(*notes: str) -> str:
    return f"{SENDER} d 5 [{','.join(notes)}]"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_note_is_read_and_written_as_before(text: str) -> None:
    read = decode(payload(text))

    assert [encode(note) for note in read.notes] == [text]
    assert head(read.sender, is_direct=read.is_direct, number=read.number) == f"{SENDER} d 5 "


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_fields_and_kinds_of_a_later_version_are_passed_over(text: str) -> None:
    more = json.dumps([*json.loads(text), {"of": "a later version"}], separators=(",", ":"))

    read = decode(payload('["invented",{"any":1}]', more, '["invented"]'))

    assert [encode(note) for note in read.notes] == [text]
