"""Tests of tasklogs.tracing."""
