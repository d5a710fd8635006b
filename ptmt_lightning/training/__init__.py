"""A whole run: the model is built and checked, trained and tested, and the run's folder is written."""
