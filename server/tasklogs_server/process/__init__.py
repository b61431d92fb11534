"""The operating-system process: start, signals, log output, tuning.

Nothing here knows tasks, logs, gRPC or SQL.
"""
