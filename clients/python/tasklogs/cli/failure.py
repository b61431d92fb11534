"""A command's failure: one line on stderr, exit 1."""


class CommandFailed(Exception):
    """The command failed for a reason that its user can act on; `str()` is the line to print."""
