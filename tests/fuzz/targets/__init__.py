"""What is fuzzed: one decoder, or one small family, in each file. No engine comes in here."""
