"""What a follow asks before it makes its next messages: whether there is memory for them."""

from __future__ import annotations

from typing import Protocol

from tasklogs_server.concurrency.wake import Settable


class SendBudget(Protocol):
    """The bytes that one follow may hold for its caller. None are held while it waits."""

    @property
    def is_waiting(self) -> bool:
        """Whether an `acquire` was refused, and its turn has not come yet."""

    def acquire(self, size_bytes: int, woken: Settable) -> bool:
        """Hold `size_bytes`, in place of what is held now. Return whether there is room.

        If there is none, nothing is held, and `woken` is set when it is this follow's turn: the
        next `acquire` of that size then succeeds, and smaller ones before it.
        """

    def release(self) -> None:
        """Hold nothing: all messages were sent."""


class Unlimited:
    """The budget of follows that share their memory with no one."""

    is_waiting = False

    def acquire(self, size_bytes: int, woken: Settable) -> bool:
        """There is always room."""
        return True

    def release(self) -> None:
        """Nothing is counted."""
