"""Tests of tasklogs_server.logs.
Other rooms come in only as the real parts that it stands on."""
