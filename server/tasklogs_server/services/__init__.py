"""Thin gRPC services: decode, call, encode; the table of errors; the interceptor.
No SQL and no decisions."""
