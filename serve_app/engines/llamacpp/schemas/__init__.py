"""JSON schemas, rewritten to the subset that llama.cpp obeys."""
