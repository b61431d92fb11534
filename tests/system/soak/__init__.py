"""Real processes under load and faults, a ledger of what each part reported, and a verdict.

`python -m tests.system.soak --help`; docs/development.md says how to read what it prints.
"""
