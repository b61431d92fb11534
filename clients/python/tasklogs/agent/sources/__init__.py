"""What an agent can read: one source per package or file.

No gRPC here: `tasklogs.publish` sends the entries that a source shows.
"""
