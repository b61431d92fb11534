"""The port: the listener and TLS, the registered services, reflection, health.

No SQL and no rule about tasks or logs.
"""
