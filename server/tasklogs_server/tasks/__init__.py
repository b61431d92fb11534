"""Tasks themselves: create, list, report and delete them; their agent tokens; retention; purge.

No gRPC and no SQL.
"""
