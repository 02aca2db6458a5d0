"""lamina's own residual components."""
