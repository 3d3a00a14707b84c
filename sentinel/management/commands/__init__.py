"""Commands of the installation: serve, worker, migrate."""
