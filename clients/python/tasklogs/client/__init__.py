"""The client library: reading, following and operating tasks, asynchronous and not.
It stands on tasklogs.channel, errors, enums, log and v1; agent, cli and server may not come in."""
