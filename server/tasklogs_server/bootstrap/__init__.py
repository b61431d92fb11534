"""What the settings come to: security, database, monitoring, listening.

Only the composition root (app) imports this package.
"""
