"""lamina's own schedule components."""
