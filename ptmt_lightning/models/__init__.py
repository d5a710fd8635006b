"""The systems that can be trained, one file or package each, and the base classes that they share."""
