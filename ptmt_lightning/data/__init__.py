"""Data sets: from raw files to batches of token ids."""
