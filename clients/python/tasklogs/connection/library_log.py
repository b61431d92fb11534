"""Where the library says what it does on its own: Python's logger `tasklogs`."""

from __future__ import annotations

import logging

LOG = logging.getLogger("tasklogs")
# Without a handler, Python would print warnings on the stderr of a program that set up none.
LOG.addHandler(logging.NullHandler())
