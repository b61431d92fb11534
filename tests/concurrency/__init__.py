"""Tests of tasklogs_server.concurrency."""
