"""One file a system, and the base that they share."""
