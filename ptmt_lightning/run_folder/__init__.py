"""What a run leaves in its folder: where each file stands, how it is written, and how it is read again."""
