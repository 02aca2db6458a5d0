"""lamina's own router components."""
