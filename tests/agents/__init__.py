"""The transcript sources with what real agents wrote: recordings, and the agents themselves."""
