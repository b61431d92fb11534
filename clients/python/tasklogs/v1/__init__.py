"""Stubs of the API tasklogs.v1, generated from protos/ by `make protos`.
Nothing written by hand comes in."""
