"""The client library: reads, follows and operates tasks, with and without asyncio.
It stands on tasklogs.connection, errors, enums, log and v1; agent, cli, server may not come in."""
