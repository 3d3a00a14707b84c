"""The ground floor: what the four packages above share. It knows none of them."""
