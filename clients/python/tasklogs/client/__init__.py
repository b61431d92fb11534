"""The client library: reading, following and operating tasks, asynchronous and not.
It stands on tasklogs.connection, errors, enums, log and v1; agent, cli, server may not come in."""
