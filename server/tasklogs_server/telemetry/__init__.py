"""What operators are told of a running server: calls, metrics, traces. Off unless asked for.

Other rooms know `observer` and `calls`, which need no library; the composition root builds the
rest.
Content, prompts and tokens never come in.
"""
