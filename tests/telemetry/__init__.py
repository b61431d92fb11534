"""Tests of tasklogs_server.telemetry."""
