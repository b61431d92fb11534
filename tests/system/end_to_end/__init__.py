"""Tests of the whole system: server, agent, task app and command run as separate processes.
They import nothing from the server's packages: they use only what a user has."""
