"""Tests of tasklogs.cli.
Other rooms come in only as the real parts that it stands on."""
