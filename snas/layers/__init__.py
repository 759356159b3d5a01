"""Layers of our own, in place of PyTorch's: `dct.py` (a fixed cosine transform beside sparse weights)."""
