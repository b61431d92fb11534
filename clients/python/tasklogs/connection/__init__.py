"""How a client connects to a server: channel, TLS, waits, what a failed connection means.

Nothing here knows tasks or logs.
"""
