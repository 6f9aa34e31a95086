"""What the relay asks: the issuer, which publishes its keys, and the backend, which allows every
subscription."""

import contextlib
import http.server
import json
import threading
import time

# The public key of RFC 8037, appendix A.2.
EXAMPLE_KEY = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


class Backend:
    """A server that answers as both do, each question after `delay_s`."""

    def __init__(self, ttl_s: int, public_key: str = EXAMPLE_KEY):
        """Starts the server. `public_key` is an Ed25519 key in base64url."""
        self.ttl_s = ttl_s
        self.delay_s = 0.0
        key = {"kty": "OKP", "crv": "Ed25519", "kid": "issuer", "use": "sig", "x": public_key}
        self.keys = {"keys": [key]}
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
        server.backend = self
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(self.server.backend.keys)

    def do_POST(self):
        backend = self.server.backend
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(backend.delay_s)
        self.answer({"allow": question["topics"], "ttl_s": backend.ttl_s})

    def answer(self, content):
        body = json.dumps(content).encode()
        # The relay has gone away if the answer took too long.
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass
