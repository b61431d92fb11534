"""Tests of tasklogs.agent.
Other rooms come in only as the real parts that it stands on."""
