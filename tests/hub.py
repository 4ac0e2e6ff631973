"""A hub on loopback that answers Hugging Face's library for folders of this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(
    models: dict[str, Path], gated: set[str], data_sets: dict[str, Path] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serve models and data sets by repository id; give the address and what was asked."""
    asked: list[str] = []
    folders = {"models": models, "datasets": data_sets or {}}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            parts = path.strip("/").split("/")
            if parts[0] == "api" and parts[1] in folders:
                self._describe(folders[parts[1]], "/".join(parts[2:4]), parts)
                return
            found = models
            if parts[0] == "datasets":
                found, parts = folders["datasets"], parts[1:]
            repository, file = "/".join(parts[:2]), "/".join(parts[4:])
            source = found.get(repository, Path("none")) / file
            if not source.is_file():
                self._refuse(404, "EntryNotFound" if repository in found else "RepoNotFound")
                return
            if repository in gated and file != "config.json":
                self._refuse(403, "GatedRepo")
                return
            content = source.read_bytes()
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "Content-Length": str(len(content)),
            }
            self._send(200, headers, content if body else b"")

        def _describe(self, found: dict[str, Path], repository: str, parts: list[str]) -> None:
            if repository not in found:
                self._refuse(401, "RepoNotFound")
                return
            if parts[-1] == "auth-check" and repository in gated:
                self._refuse(403, "GatedRepo")
                return
            if "revision" in parts and parts[-1] not in ("main", COMMIT):
                self._refuse(404, "RevisionNotFound")
                return
            files = sorted(found[repository].iterdir())
            answer: object
            if "tree" in parts:
                answer = [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name}
                    for f in files
                ]
            else:
                names = [{"rfilename": f.name} for f in files]
                answer = {"id": repository, "sha": COMMIT, "siblings": names, "tags": []}
                answer |= {"gated": "manual" if repository in gated else False}
            content = json.dumps(answer).encode()
            self._send(200, {"Content-Length": str(len(content))}, content)

        def _refuse(self, status: int, code: str) -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"}
            self._send(status, headers, b"")

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
