"""The people who use the admin: their sessions, second factor, and the events of what they do."""
