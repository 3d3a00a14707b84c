"""The ways to an upstream: one seam (base), one file for each way."""
