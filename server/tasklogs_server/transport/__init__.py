"""The port: the listener and TLS, the registered services, reflection, health, gRPC workarounds.

No SQL and no rule about tasks or logs.
"""
