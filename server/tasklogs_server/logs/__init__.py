"""Reading logs: what a task's state allows, pages, cursors.
No gRPC and no SQL; it asks for a sync and reads the store."""
