"""Arithmetic that skips what is not there: linear layers that store and multiply their kept weights alone."""
