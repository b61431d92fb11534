"""How much is accepted: places for calls, rates per caller, handshakes, bytes of ingest.

No gRPC and no SQL; each limit raises a domain error.
"""
