"""Tests of tasklogs_server.transport."""
