"""Every SQL query and the migrations.
Here asyncpg's errors become domain errors; no protobuf services, no gRPC."""

from tasklogs_server.store.migrate import SchemaRefused, UnknownSchema, migrate
from tasklogs_server.store.store import Store

__all__ = ["SchemaRefused", "Store", "UnknownSchema", "migrate"]
