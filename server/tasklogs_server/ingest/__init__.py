"""How logs are written: sessions, drafts, group commit, syncs, uploads, the limits of a log.

No gRPC and no SQL: `services` decodes the messages, `store` stores them.
"""
