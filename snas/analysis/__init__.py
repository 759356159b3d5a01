"""What the registry's records say about the methods themselves: which signals went along with the final score."""
