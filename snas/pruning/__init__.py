"""Which weights to keep: scores say how much each matters, allocations how many each layer keeps, methods combine."""
