"""The policy as a YAML document: read, written, compared, tested."""
