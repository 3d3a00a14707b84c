"""The decision (pure): rules compiled, conditions, names and addresses matched, limits found."""
