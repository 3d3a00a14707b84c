"""Durable before anything happens: the local write-ahead log of each process. It knows no database, and of Django only the settings."""
