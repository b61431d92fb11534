"""The bus over Postgres: LISTEN and NOTIFY, on a connection of its own beside the commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import structlog

from tasklogs_server.bus.transport import BusUnavailable, Outgoing, Receiver
from tasklogs_server.concurrency.stall_free_timeout import stall_free_timeout
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store.connections import Connection
from tasklogs_server.store.errors import STORE_ERRORS, in_words

_ALL = "tasklogs"
# Postgres refuses 8,000 bytes.
_MAX_PAYLOAD_BYTES = 7900
_SEND_SECONDS = 3.0
_RETRY_SECONDS = 0.5

# One transaction: Postgres delivers in this order.
_NOTIFY = """
    SELECT pg_notify(channel, payload)
      FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS one (channel, payload, number)
     ORDER BY number"""

_log = structlog.get_logger(__name__)


class PostgresTransport:
    """Sends payloads as notifications. `open_connection` opens one to the primary."""

    max_payload_bytes = _MAX_PAYLOAD_BYTES

    def __init__(self, open_connection: Callable[[], Awaitable[Connection]]) -> None:
        self._open_connection = open_connection
        self._connection: Connection | None = None
        self._is_lost = False

    async def run(self, process_id: UUID, receiver: Receiver) -> None:
        """Listen until cancelled; connect again whenever the connection is lost."""
        while True:
            try:
                connection = await self._open_connection()
            except (StoreUnavailable, *STORE_ERRORS) as error:
                self._note_loss(in_words(error))
            else:
                try:
                    await self._listen(connection, process_id, receiver)
                finally:
                    connection.terminate()
            await asyncio.sleep(_RETRY_SECONDS)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Send all in one transaction. Raises BusUnavailable."""
        connection = self._connection
        if connection is None:
            raise BusUnavailable
        try:
            async with stall_free_timeout(_SEND_SECONDS):
                await connection.execute(
                    _NOTIFY,
                    [_channel(one.to) for one in messages],
                    [one.payload for one in messages],
                )
        except BaseException as error:
            connection.terminate()  # that ends `_listen`
            if isinstance(error, STORE_ERRORS):
                raise BusUnavailable from error
            raise

    async def _listen(self, connection: Connection, process_id: UUID, receiver: Receiver) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())

        def take(_: Any, __: int, ___: str, payload: object) -> None:
            receiver.take(str(payload))

        try:
            for channel in (_ALL, _channel(process_id)):
                await connection.add_listener(channel, take)
        except STORE_ERRORS as error:
            self._note_loss(in_words(error))
            return
        if self._is_lost:
            self._is_lost = False
            _log.info("bus.found")
        self._connection = connection
        receiver.connection_changed(True)
        try:
            await lost.wait()
            self._note_loss("the connection to Postgres ended")
        finally:
            self._connection = None
            receiver.connection_changed(False)

    def _note_loss(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            _log.warning("bus.lost", reason=reason)


def _channel(to: UUID | None) -> str:
    return _ALL if to is None else f"{_ALL}_{to.hex}"
