"""Commands of the proxy application."""
