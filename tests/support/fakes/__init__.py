"""Fakes of what the real part will not show on demand.
No tests here, and no fake of anything that can run for real."""
