"""The database: the embedded server, where it is, its schema, and what the serving role may do."""
