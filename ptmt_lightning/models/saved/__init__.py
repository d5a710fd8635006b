"""Saved systems: from the settings in a model's folder to its batches and its layers, without any training code."""
