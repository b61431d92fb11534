"""Tests, mirroring the packages.
Real parts, conditions with a deadline instead of sleeps; no mocks where the real thing runs."""
