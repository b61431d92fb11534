"""Tests of tasklogs_server.limits."""
