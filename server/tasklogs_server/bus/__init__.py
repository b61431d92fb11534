"""Notes between processes: hints that wake, never the truth.
No log data, no decisions; the store decides."""
