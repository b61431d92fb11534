"""The log algebra of agent, server and clients: entries, appends, truncation, deltas, digests.

Pure Python without third-party packages. gRPC, HTTP and databases must not be imported.
"""
