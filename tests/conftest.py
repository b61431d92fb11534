"""Fixtures that all tests may use."""

pytest_plugins = ["tests.support.fixtures.postgres", "tests.support.fixtures.server"]
