"""Tests of tasklogs_server.ingest."""
