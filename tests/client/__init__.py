"""Tests of what every Python client stands on: tasklogs.connection.channel, tasklogs.errors.
Other packages take part only as the real parts that it uses."""
