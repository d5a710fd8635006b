"""PTMTTaxoFormer and its peers: hierarchical text classification with PyTorch Lightning."""

__version__ = "0.1.0"
