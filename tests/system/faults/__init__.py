"""One fault at a time, on purpose: what breaks, who is told what, and that all flows again."""
