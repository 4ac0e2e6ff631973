"""A real server on loopback that speaks S3 (SeaweedFS), to be killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

KEYS = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "secret-of-writer"}


def find_server() -> str | None:
    """Return the server's program, None where it is not installed."""
    beside = Path(sys.executable).parent
    return shutil.which("weed", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")


@dataclass
class ObjectServer:
    """The server of one folder, on ports of its own.

    Attributes:
        folder: that holds its data.
        environment: variables under which the program finds it.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _ports: list[int] = field(default_factory=list)

    def start(self, volumes: int = 8) -> None:
        """Start it, or start it again, and wait until it answers."""
        if not self._ports:
            self._ports = _free_ports(4)
            self.folder.mkdir(parents=True, exist_ok=True)
            rights = {
                "identities": [
                    {
                        "name": "writer",
                        "credentials": [
                            {
                                "accessKey": KEYS["AWS_ACCESS_KEY_ID"],
                                "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"],
                            }
                        ],
                        "actions": ["Read", "Write", "List", "Tagging"],
                    }
                ]
            }
            (self.folder / "s3.json").write_text(json.dumps(rights))
        master, volume, filer, s3 = self._ports
        command = [
            *(
                str(find_server()),
                "server",
                f"-dir={self.folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
            ),
            *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
            *(f"-s3.port={s3}", "-s3", f"-s3.config={self.folder}/s3.json"),
            *("-master.telemetry=false", "-master.electionTimeout=1s", f"-volume.max={volumes}"),
            *("-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0"),
        ]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )
        endpoint = f"http://127.0.0.1:{s3}"
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
        self._wait()

    def bucket(self, name: str) -> None:
        """Make a bucket, of three letters at least."""
        self.say(f"s3.bucket.create -name {name}")

    def say(self, command: str) -> str:
        """Run a command of the server's own shell and return what it says."""
        master, _, filer, _ = self._ports
        weed = str(find_server())
        shell = [weed, "shell", f"-master=127.0.0.1:{master}", f"-filer=127.0.0.1:{filer}"]
        done = subprocess.run(
            shell, input=command, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout + done.stderr

    def kill(self) -> None:
        """Kill it in the middle of whatever it does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            try:
                urlopen(self.environment["AWS_ENDPOINT_URL"], timeout=10).close()
            except HTTPError:  # it answers
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
            else:
                return


def _free_ports(n: int) -> list[int]:
    """Return free ports whose neighbours 10,000 above, used for gRPC, are free, too."""
    found: list[int] = []
    for port in range(20_000, 50_000, 7):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            found.append(port)
        if len(found) == n:
            return found
    raise AssertionError("no free ports")
