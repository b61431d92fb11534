"""The algebra of logs that agent, server and clients share: entries, truncation, deltas, digests.

Pure and without third parties. Nothing that knows gRPC, HTTP or a database may come in.
"""
