"""lamina's own backend components."""
