"""An identity provider: it signs tokens and serves its public keys over HTTP."""

import base64
import hmac
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "llm"
NAME = "https://login.example"


class Issuer:
    """Signs with RS256. `fetches`: requests for its keys; `status`: of their answers."""

    file: Path  # where a test has written the keys

    def __init__(self) -> None:
        self.private: dict[str, rsa.RSAPrivateKey] = {}
        self._made: dict[str, rsa.RSAPrivateKey] = {}
        self.fetches = 0
        self.status = 200
        self.add("first")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"

    def add(self, key_id: str) -> None:
        if key_id not in self._made:
            self._made[key_id] = rsa.generate_private_key(65537, 2048)
        self.private[key_id] = self._made[key_id]

    def reset(self) -> None:
        self.fetches, self.status = 0, 200
        self.private = {"first": self.private["first"]}

    def public(self, key_id: str = "first") -> dict[str, Any]:
        jwk = jwt.algorithms.RSAAlgorithm.to_jwk(self.private[key_id].public_key(), as_dict=True)
        return {**jwk, "kid": key_id, "use": "sig"}

    @property
    def document(self) -> bytes:
        return json.dumps({"keys": [self.public(key_id) for key_id in self.private]}).encode()

    def token(self, key_id: str = "first", headers: dict[str, Any] | None = None, **claims: Any):
        """Return a token of `ada` that is valid for an hour; a claim that is None is left out."""
        claims = self._claims() | claims
        return jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            self.private[key_id],
            algorithm="RS256",
            headers={"kid": key_id, **(headers or {})},
        )

    def unsigned(self) -> str:
        """Return a token with `alg: none`."""
        return jwt.encode(self._claims(), None, algorithm="none", headers={"kid": "first"})

    def signed_with_public_key(self) -> str:
        """Return a token whose shared secret is the public key, as an attacker makes it."""
        public = self.private["first"].public_key()
        secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        parts = ({"alg": "HS256", "kid": "first"}, self._claims())
        text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_base64(hmac.digest(secret, text.encode(), 'sha256'))}"

    @staticmethod
    def _claims() -> dict[str, Any]:
        return {"iss": NAME, "aud": AUDIENCE, "sub": "ada", "exp": time() + 3600}

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {"issuer": NAME, "audience": AUDIENCE, "jwks": self.url, **changes}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                self.send_response(issuer.status)
                self.end_headers()
                self.wfile.write(issuer.document)

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
