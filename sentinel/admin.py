"""The people who use the admin, as the admin shows them."""
