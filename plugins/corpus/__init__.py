"""lamina's own corpus components."""
