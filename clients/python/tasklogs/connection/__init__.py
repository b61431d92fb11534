"""How a client reaches a server: channel, TLS, what a failed connection means.

Nothing here knows tasks or logs.
"""
