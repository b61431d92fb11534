"""Tokens of users, the keys that check them, and certificates of clients and of the server.

No gRPC and no store: what a call carries is passed in, and a User comes out.
"""
