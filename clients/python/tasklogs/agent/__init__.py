"""The agent: a sidecar that reads a task app's conversation and sends it to the server.

`task_app` reads, `stream` sends, `run` connects the two. tasklogs_server must not be imported.
"""
