"""The embedded engine: llama.cpp's own server, and Ollama's native routes translated to it."""
