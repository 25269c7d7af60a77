"""A stand-in GPU: a small HTTP server that speaks Ollama's protocol at a declared speed."""
