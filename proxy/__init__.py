"""MCP in, MCP out: the consumer, the pipeline, and the transports to upstreams."""
