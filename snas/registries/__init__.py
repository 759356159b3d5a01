"""What can be done with registry files beside reading and writing results: open, check, copy, merge, tell who lives."""
