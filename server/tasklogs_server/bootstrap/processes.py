"""The bus to the other server processes, as the settings say."""

from __future__ import annotations

from tasklogs_server.bus.postgres import PostgresTransport
from tasklogs_server.bus.shared import SharedBus
from tasklogs_server.store import Store


def bus_of(store: Store) -> SharedBus:
    """Build the bus. It does nothing until it runs."""
    return SharedBus(store.process_id, PostgresTransport(store.open_bus_connection))
