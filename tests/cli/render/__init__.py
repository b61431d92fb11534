"""Tests of tasklogs.cli.render."""
