"""Experiments: several methods on the same data with several seeds, read as the paper's tables. No torch."""
