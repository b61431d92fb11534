"""One file per kind of fault. Each has `FAULTS`, a tuple of tests.system.soak.fault.Fault.

Nothing here checks anything: a fault does harm and undoes it. New files are found automatically.
"""
