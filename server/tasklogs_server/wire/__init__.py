"""What several packages encode: entries, times, enums, status.

Pure functions; no gRPC and no SQL.
"""
