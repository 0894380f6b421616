"""Blind pairwise evaluation: sampling, blinding, statistics."""
