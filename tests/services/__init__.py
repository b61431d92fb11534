"""Tests of tasklogs_server.services, on real servers."""
