"""Tests of tasklogs_server.wire."""
