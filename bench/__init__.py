"""The measurements behind every figure in the docs.

Each run compares TaskLogs, side by side, with the fastest that its libraries can do. The product
imports nothing from here.
"""
