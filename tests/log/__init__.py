"""Tests of tasklogs.log.
Other rooms come in only as the real parts that it stands on."""
