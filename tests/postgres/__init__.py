"""Tests of tasklogs_server.postgres, with real Postgres processes."""
