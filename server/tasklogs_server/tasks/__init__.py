"""Tasks themselves: create, list, report and delete them; their agent tokens; retention.

No gRPC and no SQL.
"""
