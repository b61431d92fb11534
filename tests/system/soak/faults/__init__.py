"""One file per kind of fault; each has a `FAULTS`, a tuple of tests.system.soak.fault.Fault.

Nothing here judges: a fault does harm and undoes it. A new file is found by its being here.
"""
