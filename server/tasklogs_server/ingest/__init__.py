"""How logs get in: sessions, drafts, group commit, syncs, uploads, the limits of a log.

No gRPC and no SQL: services decodes the messages, store keeps them.
"""
