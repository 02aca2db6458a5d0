"""lamina's own norm components."""
