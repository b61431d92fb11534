"""Tests of bench.
Other rooms come in only as the real parts that a run starts."""
