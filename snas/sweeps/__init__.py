"""Whole tables of methods and densities: planned, trained into the registry by one or more processes, compared."""
