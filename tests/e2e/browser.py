"""A headless Chromium, driven by its DevTools protocol: what a page in a person's browser can and cannot do."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_SECONDS = 60
SCRIPT_SECONDS = 60


class Page:
    """The one page of a browser."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._number = 0
        self._asked: list[str] = []

    def go(self, address: str) -> None:
        """Load an address and wait until its document is complete."""
        self._call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def resize(self, width: int, height: int) -> None:
        """Show pages as on a screen of so many CSS pixels; a narrow one is a telephone."""
        narrow = width < 500
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)

    def wait(self, condition: str) -> None:
        """Wait until an expression of the page is true; a page that goes on to another has no body for a moment."""
        deadline = time.monotonic() + SCRIPT_SECONDS
        while not self.run(f"document.body !== null && ({condition})"):
            assert time.monotonic() < deadline, f"{condition} never came true: {self.run('document.body.innerText')}"
            time.sleep(0.2)

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def asked(self) -> list[str]:
        """Return a list that from now on holds the address of everything that the page asks for."""
        self._call("Network.enable")
        return self._asked

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._line.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._line.recv(timeout=SCRIPT_SECONDS))
            if message.get("method") == "Network.requestWillBeSent":
                self._asked.append(message["params"]["request"]["url"])
            if message.get("id") == self._number:
                return message["result"]


@contextmanager
def browser() -> Iterator[Page]:
    """Give a page of a fresh browser, which takes every host name that ends in .example for this machine."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, (
        "no Chromium on this machine, so whether a web page can command it is not tested: "
        "`infra/chromium.sh` installs one, as root or by sudo"
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}"),
            *("--host-resolver-rules=MAP *.example 127.0.0.1", "--no-proxy-server", "about:blank"),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_page_address(Path(profile) / "DevToolsActivePort"), max_size=None, proxy=None) as line:
                yield Page(line)
        finally:
            process.terminate()
            process.wait(30)


def _page_address(port_file: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            port = port_file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
                return str(next(page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page"))
        except (OSError, IndexError, StopIteration):
            assert time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.2)
