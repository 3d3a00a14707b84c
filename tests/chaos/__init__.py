"""Kills, hangs and full disks under load; a checker joins what clients saw, what the upstream did, and what the log says."""
