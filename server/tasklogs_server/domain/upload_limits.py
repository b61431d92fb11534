"""How large a conversation may be that is uploaded in parts.

With `TASKLOGS_UPLOADS` these limit the memory of uploads: the server holds a conversation until it
is complete.
"""

MAX_UPLOAD_BYTES = 64 * 1024 * 1024
"""Of content and names."""
MAX_UPLOAD_ENTRIES = 100_000
