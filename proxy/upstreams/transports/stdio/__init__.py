"""Upstreams that are commands: started, confined, spoken with over a pipe."""
