"""Peers that mean harm at the port of a real server, and what its honest readers notice of them.

`python -m tests.system.hostile --help`; docs/development.md says how to read what it prints.
"""
