"""A whole run: built, checked, trained, and written to its folder."""
