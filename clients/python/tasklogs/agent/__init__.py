"""The agent: the sidecar that stands beside a task app and carries its conversation to the server.

`wire`, `differ` and `health` are pure. Nothing of the server (tasklogs_server) may come in.
"""
