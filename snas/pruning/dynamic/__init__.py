"""Masks that move while a network trains: pruning after and during training, dynamic sparse training."""
