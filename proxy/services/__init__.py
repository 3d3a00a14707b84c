"""Acts on upstreams and on what they define, each with its event."""
