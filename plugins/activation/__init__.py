"""lamina's own activation components."""
