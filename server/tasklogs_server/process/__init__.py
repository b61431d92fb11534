"""The operating-system process: lifecycle and signals, log output, wall clock, tuning.

Nothing here knows tasks, logs, gRPC or SQL.
"""
