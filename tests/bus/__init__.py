"""Tests of `bus`."""
