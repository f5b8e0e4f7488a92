"""Network, bounds and specification to a solver-neutral mixed-integer linear program."""
