"""Ways for coroutines to share, wait and run: singleflight, background tasks, a clock, retries.

Nothing here knows tasks, logs, gRPC or SQL.
"""
