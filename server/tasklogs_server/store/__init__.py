"""All SQL and the migrations. asyncpg's errors become domain errors here.

No gRPC and no messages of the API.
"""

from tasklogs_server.store.errors import SchemaRefused, UnknownSchema
from tasklogs_server.store.migrate import migrate
from tasklogs_server.store.store import Store

__all__ = ["SchemaRefused", "Store", "UnknownSchema", "migrate"]
