"""Tests of the whole: server, agent, task app and command as separate processes.
No imports of the server's rooms: only what a user has."""
