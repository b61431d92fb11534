"""Tests of tasklogs_server.tasks."""
