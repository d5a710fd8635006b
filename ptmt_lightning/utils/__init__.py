"""What all other packages use: files that are whole or absent, checks of settings, lazy imports, texts as token ids."""
