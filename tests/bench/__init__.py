"""Tests of bench.
They use other packages only as the real programs that a run starts."""
