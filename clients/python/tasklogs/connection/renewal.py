"""A channel whose TLS files may be renewed while it is open.

gRPC reads a client's certificates once per channel. So a channel is replaced by another when the
files have changed; calls that run stay on the old one, which is closed after the last of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from tasklogs.connection.library_log import LOG
from tasklogs.connection.tls import Tls, UnusableTls

OpenWith = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class _Opened:
    """One channel of gRPC, with its calls that run."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.methods: dict[str, Any] = {}
        self.calls = 0


class RenewedChannel(grpc.aio.Channel):
    """Each call looks whether the files have changed, and uses what they hold.

    If renewed files cannot be used, the channel keeps those from before, and says so once.
    """

    def __init__(self, tls: Tls, open_with: OpenWith) -> None:
        """Raises UnusableTls."""
        self._tls = tls
        self._open_with = open_with
        self._state = tls.state()
        self._current = _Opened(open_with(tls.credentials()))
        self._replaced: set[_Opened] = set()

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close it, as grpc.aio.Channel does."""
        for opened in (*self._replaced, self._current):
            await opened.channel.close(grace)
        self._replaced.clear()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the channel that the next call uses, unless the files change."""
        return self._current.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait as grpc.aio.Channel does."""
        await self._current.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait as grpc.aio.Channel does."""
        await self._current.channel.channel_ready()

    def unary_unary(self, method: str, *settings: Any, **more: Any) -> Any:
        """Return what makes calls of `method`, as grpc.aio.Channel does."""
        return self._calls("unary_unary", method, settings, more)

    def unary_stream(self, method: str, *settings: Any, **more: Any) -> Any:
        """Return what makes calls of `method`, as grpc.aio.Channel does."""
        return self._calls("unary_stream", method, settings, more)

    def stream_unary(self, method: str, *settings: Any, **more: Any) -> Any:
        """Return what makes calls of `method`, as grpc.aio.Channel does."""
        return self._calls("stream_unary", method, settings, more)

    def stream_stream(self, method: str, *settings: Any, **more: Any) -> Any:
        """Return what makes calls of `method`, as grpc.aio.Channel does."""
        return self._calls("stream_stream", method, settings, more)

    def _calls(
        self, kind: str, method: str, settings: tuple[Any, ...], more: dict[str, Any]
    ) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            opened = self._up_to_date()
            made = opened.methods.get(method)
            if made is None:
                made = getattr(opened.channel, kind)(method, *settings, **more)
                opened.methods[method] = made
            begun = made(*arguments, **options)
            opened.calls += 1
            begun.add_done_callback(lambda _: self._ended(opened))
            return begun

        return call

    def _up_to_date(self) -> _Opened:
        state = self._tls.state()
        if state != self._state:
            # Files that cannot be used are not read again before they change again.
            self._state = state
            try:
                credentials = self._tls.credentials()
            except UnusableTls as error:
                LOG.warning("the renewed TLS files cannot be used: %s", error)
            else:
                self._replace_by(_Opened(self._open_with(credentials)))
        return self._current

    def _replace_by(self, opened: _Opened) -> None:
        LOG.info("the TLS files were renewed: new calls use them")
        old, self._current = self._current, opened
        if old.calls:
            self._replaced.add(old)

    def _ended(self, opened: _Opened) -> None:
        opened.calls -= 1
        if not opened.calls:
            # gRPC closes a channel to which there is no reference.
            self._replaced.discard(opened)
