"""`make demo` shows what TaskLogs does, with the commands that a person would type.

It uses the installed command and the tests' scripted task app. It imports nothing of the server.
"""
