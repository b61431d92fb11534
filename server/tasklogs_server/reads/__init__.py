"""How logs are read: pages, follows, cursors and page tokens.

No gRPC and no SQL. A live read first asks for a sync; then every read reads the store.
"""
