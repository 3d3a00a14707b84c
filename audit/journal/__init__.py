"""Durable before anything happens: the local write-ahead log of each process. It knows neither Django nor the database."""
