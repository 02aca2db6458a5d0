"""GGUF, the one-file format of llama.cpp, in both directions.

A family says with a `GGUF` (mapping.py) how such a file spells what its own config and checkpoint say; reading and
writing go through these, so that a family needs to know its tensors once. Sizes of types, names of tensors and the
arithmetic of quantised blocks are the `gguf` package's, which is an extra.
"""
