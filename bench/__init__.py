"""The measurements behind every figure in the docs: TaskLogs against the least that its libraries
can do, side by side in one run. Nothing here is imported by the product."""
