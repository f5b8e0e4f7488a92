"""Benchmarks of VNN-COMP: every instance in a process of its own, and how other tools did on them."""
