"""Metadata of GGUF files: `header` reads it, `card` describes the model by it."""
