"""How much the server accepts: calls at a time, rates per caller, handshakes, ingest, uploads.

No gRPC and no SQL. Each limit raises a domain error.
"""
