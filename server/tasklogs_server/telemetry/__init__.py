"""What operators see of a running server: calls, metrics, traces. Off unless asked for.

Other packages use `observer` and `calls`, which need no library. The composition root builds the
rest. Content, prompts and tokens never get in here.
"""
