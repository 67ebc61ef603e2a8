"""A web API that no model was taught, with its OpenAPI document: a library of lamps."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LAMPS = {"l7": {"name": "desk lamp", "price": 37}, "l9": {"name": "lantern", "price": 58}}


def document(base_url):
    """The API as OpenAPI 3: two reads, one order, one deletion, one with a picture for a body."""
    text = {"type": "string"}
    lamp_id = {"name": "lamp_id", "in": "path", "required": True, "schema": text}
    ok = {"200": {"description": "ok"}}
    order = {"type": "object", "required": ["lamp_id", "amount"]}
    order["properties"] = {
        "lamp_id": {"$ref": "#/components/schemas/LampId"},
        "amount": {"type": "integer", "minimum": 1},
    }
    json_body = {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}
    }
    return {
        "openapi": "3.0.3",
        "info": {"title": "Lamps", "version": "1"},
        "servers": [{"url": base_url}],
        "components": {"schemas": {"LampId": text, "Order": order}},
        "paths": {
            "/lamps": {
                "get": {
                    "operationId": "find-lamps",
                    "summary": "Find lamps in the shop.",
                    "parameters": [
                        {"name": "name", "in": "query", "schema": text},
                        {"name": "X-Key", "in": "header", "schema": text},
                    ],
                    "responses": ok,
                }
            },
            "/lamps/{lamp_id}/price": {
                "parameters": [lamp_id],
                "get": {
                    "operationId": "get_price",
                    "summary": "Get the price of a lamp.",
                    "responses": ok,
                },
            },
            "/lamps/{lamp_id}": {
                "parameters": [lamp_id],
                "delete": {"operationId": "delete_lamp", "summary": "Delete.", "responses": ok},
            },
            "/orders": {
                "post": {
                    "operationId": "order_lamp",
                    "summary": "Order lamps.",
                    "requestBody": {"required": True, **json_body},
                    "responses": ok,
                }
            },
            "/picture": {
                "put": {
                    "operationId": "put_picture",
                    "requestBody": {"required": True, "content": {"image/png": {}}},
                    "responses": ok,
                }
            },
            "/far": {"get": {"operationId": "go_far", "summary": "Redirects.", "responses": ok}},
            "/huge": {"get": {"operationId": "get_huge", "summary": "Too long.", "responses": ok}},
        },
    }


class _Handler(BaseHTTPRequestHandler):
    def _say(self, value, status=200, **headers):
        data = value if isinstance(value, bytes) else json.dumps(value, indent=2).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, held in headers.items():
            self.send_header(name, held)
        self.end_headers()
        self.wfile.write(data)

    def _note(self, body=None):
        self.server.seen.append((self.command, self.path, body, dict(self.headers)))

    def do_GET(self):
        self._note()
        parts = urlsplit(self.path)
        steps = [unquote(step) for step in parts.path.strip("/").split("/")]
        if steps == ["openapi.json"]:
            return self._say(document(f"http://{self.headers['Host']}"))
        if steps == ["far"]:
            return self._say({}, 302, Location="http://169.254.169.254/secret")
        if steps == ["huge"]:
            return self._say(b"1" * (2**20 + 1))
        if steps[0] == "lamps" and len(steps) == 1:
            name = parse_qs(parts.query).get("name", [""])[0]
            return self._say(
                [{"id": i, **lamp} for i, lamp in LAMPS.items() if name in lamp["name"]]
            )
        if steps[0] == "lamps" and len(steps) == 3 and steps[1] in LAMPS:
            return self._say({"price": LAMPS[steps[1]]["price"], "currency": "coins"})
        return self._say({"error": "no such lamp"}, 404)

    def do_DELETE(self):
        self._note()
        self._say({"deleted": self.path})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._note(body)
        self._say({"ordered": body}, 201)

    def log_message(self, *args):
        pass


@contextmanager
def lamp_server():
    """Serve on a free port of this machine; `seen` holds every request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.seen = []
    server.host = f"127.0.0.1:{server.server_port}"
    server.url = f"http://{server.host}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
