"""The folder of a run: where each of its files is, how it is written, and how it is read again."""
