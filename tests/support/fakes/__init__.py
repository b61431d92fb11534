"""Fakes of behaviour that the real program does not show on demand.
Anything that can run for real has no fake here."""
