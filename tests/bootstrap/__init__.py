"""Tests of tasklogs_server.bootstrap."""
