"""Tools for coroutines: singleflight, background tasks, a clock without stalls, retries.

Nothing here knows tasks, logs, gRPC or SQL.
"""
