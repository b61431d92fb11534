"""The fuzzed decoders: one, or one small family, per file. No file here imports an engine."""
