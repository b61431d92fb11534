"""Tests of tasklogs.publish."""
