"""What the pages of every model in the admin have in common."""
