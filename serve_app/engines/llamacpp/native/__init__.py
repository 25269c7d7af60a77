"""Ollama's own routes on llama.cpp's server."""
