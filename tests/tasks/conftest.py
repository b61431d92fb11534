"""The store's fixtures serve here too."""

from tests.store.conftest import log, sql, store, task

__all__ = ["log", "sql", "store", "task"]
