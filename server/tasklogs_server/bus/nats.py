"""The bus over NATS, for many processes. Core NATS: what a node loses when it dies is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from tasklogs_server.bus.transport import BusUnavailable, Outgoing, Receiver

_SUBJECT = "tasklogs"
# The default limit of a NATS server is 1 MiB. A payload is decoded in one go.
_MAX_PAYLOAD_BYTES = 32 * 1024
# With allow_reconnect off, too, the client goes on trying closed ports. So a limit of our own.
_CONNECT_SECONDS = 2
_ATTEMPT_SECONDS = 5.0
_RETRY_SECONDS = 0.5
# A frozen node, and a connection that was cut, are left after this time.
_PING_SECONDS = 1
_ANSWER_SECONDS = 2
_LEAVE_SECONDS = 0.5

_log = structlog.get_logger(__name__)


class NatsTransport:
    """Publishes payloads on subjects. `servers`: URLs of the nodes of one cluster.

    The client's own reconnect keeps what was sent meanwhile, and says too late that it is
    connected. So each connection is a client of its own.
    """

    max_payload_bytes = _MAX_PAYLOAD_BYTES

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = list(servers)
        self._client: Client | None = None
        self._is_lost = False

    async def run(self, process_id: UUID, receiver: Receiver) -> None:
        """Subscribe until cancelled; connect again whenever the connection is lost."""
        while True:
            try:
                await self._subscribe(process_id, receiver)
            except (Error, OSError, ValueError) as error:  # a time-out is an OSError
                self._note_loss(str(error) or type(error).__name__)
            await asyncio.sleep(_RETRY_SECONDS)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Hand all to the connection, in this order. Raises BusUnavailable."""
        client = self._client
        if client is None:
            raise BusUnavailable
        try:
            for one in messages:
                await client.publish(_subject(one.to), one.payload.encode())
        except (Error, OSError) as error:
            raise BusUnavailable from error

    async def _subscribe(self, process_id: UUID, receiver: Receiver) -> None:
        client, lost = Client(), asyncio.Event()

        async def take(message: Msg) -> None:
            receiver.take(message.data.decode(errors="replace"))

        async def closed() -> None:
            lost.set()

        reason = "the connection to NATS ended"

        async def failed(error: Exception) -> None:
            nonlocal reason
            reason = str(error) or type(error).__name__
            # The connection goes on. But a process that may not subscribe must not count as heard.
            if "permissions violation" in reason.lower():
                lost.set()

        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                await client.connect(
                    self._servers,
                    name=f"tasklogs {process_id}",
                    allow_reconnect=False,
                    connect_timeout=_CONNECT_SECONDS,
                    max_reconnect_attempts=1,
                    ping_interval=_PING_SECONDS,
                    max_outstanding_pings=2,
                    no_echo=True,
                    closed_cb=closed,
                    disconnected_cb=closed,
                    error_cb=failed,
                )
                for subject in (_subject(None), _subject(process_id)):
                    await client.subscribe(subject, cb=take)
                # `flush` sends its PING ahead of what is pending, unless the loop has had a turn.
                await asyncio.sleep(0)
                await client.flush()
            if lost.is_set():
                self._note_loss(reason)
                return
            if self._is_lost:
                self._is_lost = False
                _log.info("bus.found")
            self._client = client
            receiver.connection_changed(True)
            try:
                await _ended(client, lost)
                self._note_loss(reason)
            finally:
                self._client = None
                receiver.connection_changed(False)
        finally:
            await _close(client)

    def _note_loss(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            _log.warning("bus.lost", reason=reason)


async def _ended(client: Client, lost: asyncio.Event) -> None:
    """Wait for the end of the connection. Raises Error, or OSError, if the node does not answer.

    The client does not always tell that its connection was cut, so this asks the node.
    """
    while not lost.is_set() and client.is_connected:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PING_SECONDS):
                await lost.wait()
        if not lost.is_set():
            await client.flush(timeout=_ANSWER_SECONDS)


async def _close(client: Client) -> None:
    """Send what is pending, and close the connection."""
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait([closing], timeout=_LEAVE_SECONDS)
    if not closing.done():
        closing.cancel()
        await asyncio.wait([closing])
    if not closing.cancelled():
        closing.exception()


def _subject(to: UUID | None) -> str:
    return f"{_SUBJECT}.{'all' if to is None else to.hex}"
