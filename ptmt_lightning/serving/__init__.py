"""An HTTP server that predicts labels with a trained model."""
