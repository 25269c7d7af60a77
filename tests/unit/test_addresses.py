"""OLLAMA_HOST is read as Ollama reads it."""

import pytest

from serve_app.addresses import ollama_url


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("1.2.3.4:", "http://1.2.3.4:11434"),
        (":66000", "http://127.0.0.1:11434"),
        (":-1", "http://127.0.0.1:11434"),
        ("host:http", "http://host:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:1337", "http://[::1]:1337"),
        ("[::]", "http://127.0.0.1:11434"),
        ("[::]:1337", "http://127.0.0.1:1337"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        (" 1.2.3.4 ", "http://1.2.3.4:11434"),
        ('"1.2.3.4"', "http://1.2.3.4:11434"),
        ("\" 1.2.3.4 '", "http://1.2.3.4:11434"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("https://1.2.3.4", "https://1.2.3.4:443"),
        ("https://host", "https://host:443"),
        ("https://1.2.3.4:1234", "https://1.2.3.4:1234"),
        ("https://example.com/ollama", "https://example.com:443/ollama"),
        ("host:8080/path", "http://host:8080/path"),
        ("http://host:8080/", "http://host:8080"),
        ("https://host:99999", "https://host:443"),
    ],
)
def test_ollama_host_is_read_as_ollama_does(value: str, url: str) -> None:
    """With its scheme's own port, and this machine for a server that listens everywhere."""
    assert ollama_url(value) == url
