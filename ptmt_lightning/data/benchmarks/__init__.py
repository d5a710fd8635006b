"""The four benchmarks of the paper, read from their official files."""
