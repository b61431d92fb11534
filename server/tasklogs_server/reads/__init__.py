"""How logs are read: pages, follows, cursors and page tokens.

No gRPC and no SQL. Every read reads the store. A live read asks for a sync before that.
"""
