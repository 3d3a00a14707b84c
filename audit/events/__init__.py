"""One event: the value, its row, and the sentence that tells it."""
