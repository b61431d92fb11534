"""The agent's end of the agent stream: sessions, deltas, reconnects.

No HTTP: the task app's conversation comes in as entries.
"""
