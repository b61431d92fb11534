"""The agent's side of the agent stream: sessions, deltas, reconnects.

No HTTP here: `task_app` supplies the conversation as entries.
"""
