"""The command `tasklogs`: arguments in, lines out.
Heavy imports stay inside the commands (`--help` in 0.3 s); no logic of the service comes in."""
