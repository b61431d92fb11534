"""Tests of tasklogs.agent.stream."""
