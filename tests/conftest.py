"""Fixtures that all tests may use."""

pytest_plugins = ["tests.fixtures.reaper", "tests.fixtures.postgres", "tests.fixtures.server"]
