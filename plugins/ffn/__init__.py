"""lamina's own ffn components."""
