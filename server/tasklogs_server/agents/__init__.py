"""The agents' side: sessions, ingest, group commit, sync.
No gRPC and no SQL: services brings messages in, store keeps them."""
