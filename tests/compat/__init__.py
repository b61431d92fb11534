"""Peers of tomorrow at each side of each stream: they know more of the API than this version."""
