"""Feeds bytes to every decoder that untrusted input reaches: seconds in CI, longer by `make fuzz`.

A target knows only its decoder, and an engine knows only targets. Only targets import the code
under test, because that code is instrumented while it is imported.
"""
