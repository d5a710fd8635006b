"""The four benchmarks of the paper, from their official files."""
