"""What in a value or a text is a secret (pure): by its name, by its own form, by what stands around it."""
