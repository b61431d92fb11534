"""Mistakes that are planted into a server, so that a run shows that its checks find them."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def _loses_moved() -> None:
    """Other processes are not told of commits, and their feeds do not look by themselves."""
    from tasklogs_server.bus.shared import SharedBus
    from tasklogs_server.reads import feed

    def moved(*_: object) -> None:
        pass

    vars(feed)["_POLL_SECONDS"] = 3600.0
    setattr(SharedBus, "_moved", moved)  # noqa: B010


PLANTS: Mapping[str, Callable[[], None]] = {"loses-moved": _loses_moved}
