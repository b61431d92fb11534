"""Tests of whole programs together: end to end, under faults, against hostile peers, for long."""
