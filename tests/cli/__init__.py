"""Tests of tasklogs.cli.
Other packages take part only as the real parts that it uses."""
