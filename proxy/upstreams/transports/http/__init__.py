"""Upstreams over HTTP: Streamable HTTP, and the older HTTP+SSE."""
