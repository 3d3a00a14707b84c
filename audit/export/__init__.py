"""Events out of the database: formats, streams, and large exports as jobs."""
