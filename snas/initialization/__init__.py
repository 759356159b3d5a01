"""Initial weights: variance scaling, orthogonality, and their repair after pruning."""

RULES = ("he", "glorot", "lecun", "orthogonal", "orthogonal-full", "as-built")
