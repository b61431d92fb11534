"""Tests of tasklogs.agent.sources.agentapi."""
