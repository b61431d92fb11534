"""Tests of tasklogs_server.services.
Other rooms come in only as the real parts that it stands on."""
