"""Tests of tasklogs.connection."""
