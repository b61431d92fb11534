"""What several packages encode: entries, times, enums and status details.

Pure functions; no gRPC and no SQL.
"""
