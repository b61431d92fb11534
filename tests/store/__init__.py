"""Tests of tasklogs_server.store.

They use other packages only as its real dependencies.
"""
