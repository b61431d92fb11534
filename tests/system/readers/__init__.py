"""Readers that cancel, break off, raise and close at random, against a log that grows."""
