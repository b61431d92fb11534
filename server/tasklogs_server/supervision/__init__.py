"""Several workers on one port: their supervisor, and its messages to and from each worker.

Nothing here imports gRPC: it must not be there when other processes are started.
"""
