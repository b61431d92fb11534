"""How logs are read: pages, follows, cursors and page tokens.

No gRPC and no SQL; a live read asks for a sync, and every read reads the store.
"""
