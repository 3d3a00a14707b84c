"""The settings of an installation: read from the environment once, typed, with the secrets it makes for itself."""
