"""Tests of tools/: what the Makefile calls."""
