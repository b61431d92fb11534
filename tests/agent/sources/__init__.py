"""Tests of tasklogs.agent.sources."""
