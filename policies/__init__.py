"""Who may do what: keys, roles, rules, limits and the engine that decides."""
