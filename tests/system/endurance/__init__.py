"""A week of calls in an hour: what a server still holds after many calls of every kind.

`python -m tests.system.endurance --help`; docs/development.md says how to read what it prints.
"""
