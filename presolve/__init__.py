"""Bounds of pre-activations: interval arithmetic, CROWN, linear and mixed-integer programs."""
