"""The version of Ollama whose API, defaults and texts the service follows."""

OLLAMA_VERSION = "0.33.0"
