"""Branching rules, one file each: where an open subproblem is split."""
