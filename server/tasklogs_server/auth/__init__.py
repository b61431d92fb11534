"""Who calls, and who we are: tokens, the keys that they are checked with, certificates.

No gRPC and no store: what a call carries is handed in, and a User comes out.
"""
