"""Tests of tasklogs_server.domain.
Other rooms come in only as the real parts that it stands on."""
