"""The ground floor: what the four packages above share. It imports none of them."""
