from __future__ import annotations

import socket

from tasklogs_server.supervision.channel import Channel


async def pair() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair()
    return await Channel.open(ours), await Channel.open(theirs)


async def test_messages_arrive_in_order_until_the_peer_sends_no_more() -> None:
    here, there = await pair()
    here.send({"text": "ä\n"})
    here.send({"large": "x" * 1_000_000})
    here.end()
    here.send({"too": "late"})
    assert await there.receive() == {"text": "ä\n"}
    assert await there.receive() == {"large": "x" * 1_000_000}
    assert await there.receive() is None
    there.send({"still": "heard"})
    assert await here.receive() == {"still": "heard"}
    for one in (here, there):
        one.close()


async def test_what_a_peer_does_not_read_takes_bounded_memory() -> None:
    here, there = await pair()
    for _ in range(10_000):
        here.send({"beat": "x" * 1000})
    assert here.unsent_bytes < 2 * 1024 * 1024
    for one in (here, there):
        one.close()


async def test_a_peer_that_died_is_the_end_of_the_input() -> None:
    here, there = await pair()
    there.close()
    assert await here.receive() is None
    here.send({"nobody": "reads"})
    here.end()
    here.close()
