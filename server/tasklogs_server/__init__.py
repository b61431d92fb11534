"""The server. app.py composes the packages; pyproject.toml lists the layers in which they import.

Code that only clients need does not belong here.
"""
