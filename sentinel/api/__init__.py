"""The REST API: authentication, manners, description; what the other packages answer is put together here."""
