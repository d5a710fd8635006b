"""Hierarchical text classification with PyTorch Lightning: PTMTTaxoFormer and the systems it is compared with.

Where docstrings name only a section, table or equation, it is one of the PTMTTaxoFormer paper (Vasantha, Nguyen and
Zhang, EMNLP 2024 industry track).
"""

__version__ = "0.2.0"
