"""Search for counterexamples by gradient."""
