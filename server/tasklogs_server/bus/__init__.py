"""Notes that something changed: hints to read the store. Only the store decides.

Within a process a note may carry the commit itself. No decisions here.
"""
