"""Training of masked networks: rule, session, checkpoints."""
