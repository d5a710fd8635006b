"""A trained model behind an HTTP address."""
