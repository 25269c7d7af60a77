"""The simulator made as faithful to Ollama as tests need it: faults, pulls, Go's complaints."""
