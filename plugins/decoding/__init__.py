"""lamina's own decoding components."""
