"""lamina's own attention components."""
