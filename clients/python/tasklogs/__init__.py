"""The clients of TaskLogs: stubs (v1), log algebra, agent, command line.
Nothing here imports tasklogs_server, save the command `tasklogs serve`, lazily."""
