"""lamina's own family components."""
