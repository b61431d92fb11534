"""The builders of the composition root: what the settings mean for each part of the server.

Only the composition root (app) imports this package.
"""
