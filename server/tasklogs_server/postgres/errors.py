"""The error of this package."""


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot run. The text is one line for a person at a terminal."""
