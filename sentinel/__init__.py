"""The Django project that wires audit, policies and proxy together."""
