"""Hostile peers at the port of a real server, and their effect on its honest readers.

`python -m tests.system.hostile --help`; docs/development.md says how to read what it prints.
"""
