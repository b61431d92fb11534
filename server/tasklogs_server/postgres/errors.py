"""What the supervisor raises."""


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot run. The text is one line for the person at the terminal."""
