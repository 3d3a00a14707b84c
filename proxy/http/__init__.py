"""HTTP with clients: the exchange, headers, credentials, origins, sessions, refusals."""
