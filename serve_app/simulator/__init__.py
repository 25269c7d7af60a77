"""A stand-in for Ollama: a small HTTP server with its protocol and a declared speed."""
