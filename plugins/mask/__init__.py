"""lamina's own mask components."""
