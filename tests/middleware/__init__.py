"""Tests of tasklogs_server.middleware."""
