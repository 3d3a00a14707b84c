"""The part of the REST API that this package answers."""
