"""Notes between server processes: hints to read the store. Only the store decides.

No log data and no decisions here.
"""
