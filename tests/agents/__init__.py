"""Tests of tasklogs_server.agents.
Other rooms come in only as the real parts that it stands on."""
