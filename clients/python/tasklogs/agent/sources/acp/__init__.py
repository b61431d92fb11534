"""Reads a recorded stream of the Agent Client Protocol."""
