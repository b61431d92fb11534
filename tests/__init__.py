"""Tests, mirroring the rooms.
Real parts, conditions with a deadline instead of sleeps; no mocks where the real thing runs."""
