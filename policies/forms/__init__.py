"""The forms of the admin: keys, rules and limits."""
