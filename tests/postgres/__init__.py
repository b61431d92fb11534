"""Tests of tasklogs_server.postgres.
Other rooms come in only as the real parts that it stands on."""
