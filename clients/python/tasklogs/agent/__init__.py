"""The agent: a sidecar that reads a task app's conversation and sends it to the server.

`sources` read, `tasklogs.publish` sends, `run` connects the two. tasklogs_server must not be
imported.
"""
