"""The MCP servers behind the gateway: what is known of them, and the ways to them."""
