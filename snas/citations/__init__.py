"""Published figures: read from CSV files, built in, and entered into a registry as rows of kind "cited"."""

from snas.citations.figures import HEADER, REQUIRED, Citation, as_entry
from snas.citations.reader import builtin_citations, read_citations

__all__ = ["HEADER", "REQUIRED", "Citation", "as_entry", "builtin_citations", "read_citations"]
