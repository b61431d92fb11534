"""Traces as agent and server know them; opentelemetry stands behind base where it is installed.

Nothing here knows tasks or logs.
"""
