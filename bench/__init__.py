"""The measurements behind every figure in the docs.

Each run compares TaskLogs with a bare program that does the minimum with the same libraries. The
product imports nothing from here.
"""
