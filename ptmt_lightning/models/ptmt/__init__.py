"""PTMTTaxoFormer: its prompt template, batches, network and training."""
