"""Tests of tasklogs_server.process."""
