"""Every decoder that a stranger reaches, fed with bytes: in CI for seconds, by `make fuzz` longer.

Targets know their decoder alone, engines know targets alone. Nothing here imports the code under
test but the targets: it is instrumented while they are imported.
"""
