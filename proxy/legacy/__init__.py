"""The older HTTP+SSE transport, for clients that know no other."""
