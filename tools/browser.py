"""Headless Chromium (Debian's), spoken to through its pipe (DevTools protocol): no port is open."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIZES = {"phone": (360, 780), "laptop": (1280, 800)}
THEMES = ("light", "dark")
_SECONDS = 60
_PAGE_HEIGHT = 12_000


# Chromium reads commands from descriptor 3, and writes answers to 4.
_AT_3_AND_4 = """
import fcntl, os, sys
here, there = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(here, 3)
os.dup2(there, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str | None:
    """Return the path of Chromium; None if it is not installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Browser:
    """Chromium without a window, spoken to through two pipes."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        """Take the process and the ends of its pipes; open a page."""
        self._process, self._write, self._read = process, write, read
        self._number, self._buffer = 0, b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """Send a command, and return its result; events on the way are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            found = os.read(self._read, 1 << 20)
            if not found:
                raise RuntimeError("the browser has gone")
            self._buffer += found
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, page: Path, size: str, theme: str, script: str) -> dict[str, Any]:
        """Open a page at a size and in a theme; return what the script finds out about it.

        ``window`` is its width, ``requests`` and ``complaints`` are what Chromium asked for, and
        what it complains about.
        """
        width, height = SIZES[size]
        self._metrics(width, height, size)
        media = [{"name": "prefers-color-scheme", "value": theme}]
        self.ask("Emulation.setEmulatedMedia", media="", features=media)
        self.events.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        asked = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        facts: dict[str, Any] = asked["result"]["value"]
        facts["window"] = width
        facts["requests"] = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        facts["complaints"] = [
            event["params"]["entry"]["text"]
            for event in self.events
            if event["method"] == "Log.entryAdded"
        ]
        return facts

    def _metrics(self, width: int, height: int, size: str) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if size == "phone" else 1,
            mobile=size == "phone",
        )

    def picture(self, facts: dict[str, Any], size: str) -> bytes:
        """Return the whole page that is open, as PNG."""
        self._metrics(SIZES[size][0], min(int(facts["height"]), _PAGE_HEIGHT), size)
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def pdf(self) -> bytes:
        """Return the page that is open as it would be printed."""
        printed = self.ask("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        return base64.b64decode(printed["data"])


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium, with a profile of its own, and end it."""
    program = chromium()
    if program is None:
        raise RuntimeError("Chromium is not installed (`apt-get install chromium`)")
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(  # noqa: S603 - Chromium
            [sys.executable, "-c", _AT_3_AND_4, str(to_browser), str(from_browser), program,
             "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            pass_fds=(to_browser, from_browser),
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            found = Browser(process, from_us, to_us)
            yield found
            found.ask("Browser.close")
            process.wait(_SECONDS)
        finally:
            process.kill()
            process.wait()
            os.close(from_us)
            os.close(to_us)
