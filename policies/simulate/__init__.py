"""Why something is allowed or denied, and what another policy would have decided of what happened."""
