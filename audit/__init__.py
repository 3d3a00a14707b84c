"""What happened: events, their journal, their table and their proofs."""
