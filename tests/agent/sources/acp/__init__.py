"""The source that reads a recorded stream of the Agent Client Protocol."""
