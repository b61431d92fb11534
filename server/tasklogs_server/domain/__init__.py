"""What is true of a task, and what may be done with it: enums, facts, rules and errors, all pure.

Nothing here awaits, reads a clock or does I/O; no gRPC, Postgres, protobuf or other room comes in.
"""
