"""API keys: made, recognised and digested; whose a presented one is."""
