"""Tools for coroutines: singleflight, background tasks, a clock without stalls, retries, slices.

Nothing here knows tasks, logs, gRPC or SQL.
"""
