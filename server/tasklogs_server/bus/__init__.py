"""Notes between server processes: hints to look at the store, which alone decides.

No log data and no decisions here.
"""
