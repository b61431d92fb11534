"""`make demo`: a walk through what TaskLogs does, with the commands that a person would type.
It uses the installed command and the tests' scripted task app; nothing of the server comes in."""
