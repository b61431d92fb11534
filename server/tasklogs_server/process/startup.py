"""Why a server does not start."""


class StartupError(Exception):
    """The server cannot start, or cannot go on; one line that says why and what to do."""
