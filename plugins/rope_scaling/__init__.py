"""lamina's own rope_scaling components."""
