"""The protocol (pure): messages, eras, targets, lists, events, definitions. No I/O."""
