"""The task app beside the agent: its HTTP API, its events, its health.

No gRPC: what it shows goes out as entries.
"""
