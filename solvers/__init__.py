"""Solvers of mixed-integer linear programs behind one interface."""
