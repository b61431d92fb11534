"""An embedded Postgres: the binaries of a wheel, our direct child, under a supervisor of our own.

This room knows files, processes and signals. Nothing of the service comes in, neither schema nor
tasks.
"""

from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.supervisor import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
