"""Tools for coroutines: singleflight, background tasks, time limits, retries, shares of the loop.

Nothing here knows tasks, logs, gRPC or SQL.
"""
