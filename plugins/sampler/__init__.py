"""lamina's own sampler components."""
