"""The bus to the other server processes, as the settings say."""

from __future__ import annotations

import importlib.util
import os
import socket

from tasklogs.extras import how_to_install
from tasklogs.version import version
from tasklogs_server.bus.payloads import About
from tasklogs_server.bus.postgres import PostgresTransport
from tasklogs_server.bus.shared import SharedBus
from tasklogs_server.bus.transport import Transport
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store import Store


def bus_of(settings: ServerSettings, store: Store) -> SharedBus:
    """Build the bus. It does nothing until it runs. Raises StartupError if an extra is missing."""
    pid = os.getppid() if settings.is_worker else os.getpid()
    about = About(socket.gethostname(), pid, version())
    return SharedBus(store.process_id, _transport(settings, store), about)


def _transport(settings: ServerSettings, store: Store) -> Transport:
    if settings.bus == "postgres":
        return PostgresTransport(store.open_bus_connection)
    if importlib.util.find_spec("nats") is None:
        raise StartupError(
            f"TASKLOGS_BUS names NATS, but the module nats is missing; {how_to_install('nats')}"
        )
    from tasklogs_server.bus.nats import NatsTransport

    return NatsTransport(settings.bus.split(","))
