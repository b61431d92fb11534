"""Tests of what every Python client stands on: tasklogs.connection.channel, tasklogs.errors.
Other rooms come in only as the real parts that it stands on."""
