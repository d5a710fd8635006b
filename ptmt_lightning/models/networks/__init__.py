"""The layers of the systems that read ``[CLS] text [SEP]``, without anything that only training needs."""
