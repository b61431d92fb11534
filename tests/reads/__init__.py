"""Tests of tasklogs_server.reads."""
