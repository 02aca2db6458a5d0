"""lamina's own optimizer components."""
