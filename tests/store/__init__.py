"""Tests of tasklogs_server.store.
Other rooms come in only as the real parts that it stands on."""
