"""Fixtures that all tests may use."""

from __future__ import annotations

import gc
import signal

import pytest

from tests.support.fixtures import plain_logs

pytest_plugins = [
    "tests.support.fixtures.order",
    "tests.support.fixtures.reaper",
    "tests.support.fixtures.postgres",
    "tests.support.fixtures.citus",
    "tests.support.fixtures.standby",
    "tests.support.fixtures.store",
    "tests.support.fixtures.server",
]


def pytest_configure(config: pytest.Config) -> None:
    """Configure the log, and let Ctrl-C reach what tests start.

    A shell lets the jobs that it starts in the background ignore SIGINT, and what they start
    inherits that.
    """
    plain_logs.configure()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of all collections of garbage: it costs each 0.2 s of CPU.

    Some tests look often for what a call leaves in memory.
    """
    gc.collect()
    gc.freeze()
