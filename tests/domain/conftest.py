"""Settings of hypothesis for the tests of the domain."""

from hypothesis import settings

# Cores are shared with other test runs: a slow example says nothing about the code.
settings.register_profile("shared-cores", deadline=None)
settings.load_profile("shared-cores")
