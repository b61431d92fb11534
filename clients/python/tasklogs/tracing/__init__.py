"""Traces as agent and server know them: `base` keeps none, `opening` turns them on.

Only `opentelemetry` imports OpenTelemetry. Nothing here knows tasks or logs.
"""
