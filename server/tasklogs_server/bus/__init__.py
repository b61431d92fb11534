"""Notes that something changed: hints to look at the store, which alone decides.

Within a process a note may carry the commit itself. No decisions here.
"""
