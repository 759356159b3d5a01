"""Whole experiments of the sources as one command each: a declared grid, measured cell by cell into the registry."""
