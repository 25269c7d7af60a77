"""The simulator with details of Ollama that tests need: faults, pulls, Go's error texts."""
