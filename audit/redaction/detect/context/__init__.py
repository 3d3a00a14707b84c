"""Secrets told by what stands around them (pure): sentences, tables, code, command lines."""
