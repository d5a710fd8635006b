"""The four benchmarks of the paper, and RCV1-v2 and NYT, read from their official files."""
