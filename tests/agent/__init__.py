"""Tests of tasklogs.agent.
Other packages take part only as the real parts that it uses."""
