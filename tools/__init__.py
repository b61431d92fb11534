"""The programs that the Makefile calls."""
