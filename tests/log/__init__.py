"""Tests of tasklogs.log.
Other packages take part only as the real parts that it uses."""
