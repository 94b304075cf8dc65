"""Training data of ``mini``: a grid of meanings x icon sets, looks laid over it, and requests drawn from it."""
