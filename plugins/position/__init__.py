"""lamina's own position components."""
