"""lamina's own tokenizer components."""
