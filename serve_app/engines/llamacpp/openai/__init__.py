"""OpenAI's chat completions, completions and embeddings on llama.cpp's server."""
