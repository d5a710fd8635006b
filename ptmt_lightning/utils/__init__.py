"""Files that are whole or absent, checks of settings, texts as token ids: what every room uses."""
