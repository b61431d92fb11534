"""Shared by tests: fakes of other programs, and fixtures."""
