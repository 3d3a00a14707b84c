"""The demonstration: a careless MCP server, and what the gateway makes of it."""
