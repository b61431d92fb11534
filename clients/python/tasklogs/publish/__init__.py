"""How logs get in: the agent's side of the agent stream, its sessions, deltas and reconnects.

No HTTP here: a source supplies the conversation as entries.
"""
