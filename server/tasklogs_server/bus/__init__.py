"""Notes that something changed: hints to read the store. Only the store decides.

Within a process a note may carry the commit itself. Between processes notes may be lost: then all
that depends on them is looked at again. No decisions here.
"""
