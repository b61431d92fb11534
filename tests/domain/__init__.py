"""Tests of tasklogs_server.domain.

They use other packages only as its real dependencies.
"""
