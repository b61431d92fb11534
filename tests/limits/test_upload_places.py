"""Places of uploads in parts: a slow sender makes room for another one, a fast one does not."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.limits.upload_places import Place, UploadPlaces

MIB = 1024 * 1024


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_place_is_free_again_after_its_upload() -> None:
    places = UploadPlaces(1, clock=Clock())
    with places.place():
        refused(places)
    with places.place():
        pass


async def test_senders_that_are_fast_or_have_just_begun_keep_their_places() -> None:
    clock = Clock()
    places = UploadPlaces(2, clock=clock)
    with places.place() as fast:
        await arrived(fast, clock, at=20.0)
        fast.received(20 * MIB)
        with places.place():
            clock.now = 24.0
            refused(places)


def test_an_upload_that_is_being_stored_keeps_its_place() -> None:
    clock = Clock()
    places = UploadPlaces(1, clock=clock)
    with places.place() as complete:
        complete.complete()
        clock.now = 100.0
        refused(places)


async def test_the_slowest_sender_makes_room() -> None:
    clock = Clock()
    places = UploadPlaces(3, clock=clock)
    with ExitStack() as stack:
        slow, slowest, fast = (stack.enter_context(places.place()) for _ in range(3))
        never, go_on = asyncio.get_running_loop().create_future(), asyncio.Event()
        waiting = asyncio.create_task(slowest.next_part(lambda: never))
        sending = [asyncio.create_task(one.next_part(go_on.wait)) for one in (slow, fast)]
        await asyncio.sleep(0)
        clock.now = 10.0
        go_on.set()
        await asyncio.gather(*sending)
        slow.received(100_000)
        slowest.received(10)
        fast.received(10 * MIB)

        with places.place():
            with pytest.raises(LimitExceeded, match="it is slow") as gave_way:
                await waiting
            assert gave_way.value.limit is Limit.UPLOADS
            assert gave_way.value.retry_after is not None
            with places.place():  # the other slow one, which does not wait at the moment
                with pytest.raises(LimitExceeded, match="it is slow"):
                    await slow.next_part(lambda: never)
                refused(places)


async def test_time_in_which_the_server_decodes_a_part_makes_no_sender_slow() -> None:
    clock = Clock()
    places = UploadPlaces(1, clock=clock)
    with places.place() as place:
        for at in (1.0, 101.0, 201.0):
            await arrived(place, clock, at=at)
            place.received(10)
            clock.now += 99.0
        refused(places)
        await arrived(place, clock, at=303.0)
        with places.place():
            pass


def test_an_upload_that_has_left_its_place_leaves_it_once() -> None:
    places = UploadPlaces(1, clock=Clock())
    with places.place() as first:
        first.leave()
        with places.place():
            first.leave()
            refused(places)


async def test_a_time_out_of_the_sender_itself_is_raised_as_it_is() -> None:
    async def too_late() -> None:
        raise TimeoutError

    with UploadPlaces(1).place() as place, pytest.raises(TimeoutError):
        await place.next_part(too_late)


async def arrived(place: Place, clock: Clock, *, at: float) -> None:
    """Wait for a part until this moment."""

    async def arrive() -> None:
        clock.now = at

    await place.next_part(arrive)


def refused(places: UploadPlaces) -> None:
    with pytest.raises(LimitExceeded) as error, places.place():
        pass
    assert error.value.limit is Limit.UPLOADS
    assert error.value.retry_after is not None
