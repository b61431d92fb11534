"""Tests of tasklogs.agent.task_app."""
