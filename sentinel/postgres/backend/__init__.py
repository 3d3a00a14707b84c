"""Django's PostgreSQL backend for the embedded server, which starts when the first connection is asked for."""
