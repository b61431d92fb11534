"""Tests of tasklogs_server.supervision."""
