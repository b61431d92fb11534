"""Tests of tasklogs_server.bus."""
