"""Who acts, from where, and what they may: actors, client addresses, duties, and whether a session still stands."""
