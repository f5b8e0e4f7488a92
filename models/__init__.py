"""Training networks that verify fast."""
