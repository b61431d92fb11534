"""Reads the task app beside the agent: its HTTP API, its events, its health.

No gRPC here: `tasklogs.publish` sends the entries that this reads.
"""
