"""Look at pages in headless Chromium: write pictures of each, and name what is wrong with it.

That is: a page wider than its window, pictures without a text alternative, not exactly one heading
of level 1, no language.

Chromium is spoken to over a pipe (DevTools protocol), without a port. It is asked to emulate a
phone and a laptop, in a light and a dark scheme.
"""

import argparse
import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / ".venv" / "site"
PAGES = ("index.html", "cli/sev-attest-validate.html")
SIZES = {"phone": (390, 844), "laptop": (1366, 768)}
SCHEMES = ("light", "dark")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FAULTS = """
(wanted => {
  const faults = [], width = document.documentElement.scrollWidth;
  const name = one => one.tagName.toLowerCase() + ": " + one.textContent.trim().slice(0, 40);
  if (width > wanted) {
    const wide = [...document.body.querySelectorAll("*")].filter(
      one => one.getBoundingClientRect().right > wanted + 1 && !one.closest("[inert]"));
    faults.push(`${width} pixels wide (${wide.slice(-3).map(name).join("; ")})`);
  }
  for (const one of document.querySelectorAll("img, svg[role=img]"))
    if (!one.hasAttribute("alt") && !one.hasAttribute("aria-label") && !one.querySelector("title"))
      faults.push("a picture without a text alternative: " + one.outerHTML.slice(0, 60));
  if (document.querySelectorAll("h1").length != 1) faults.push("not one heading of level 1");
  if (!document.documentElement.lang) faults.push("no language");
  return faults;
})(%d)
"""


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, reading: int, writing: int) -> None:
        """Take the pipe to it, and open a page."""
        self._reading = os.fdopen(reading, "rb")
        self._writing = os.fdopen(writing, "wb", buffering=0)
        self._numbers = itertools.count(1)
        self._session = ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.ask("Page.enable")

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return Chromium's answer; raises RuntimeError if it is an error."""
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": parameters})
        while (message := self._next()).get("id") != number:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def show(self, page: Path, size: tuple[int, int], scheme: str) -> None:
        """Load a page for a screen of this size in CSS pixels, and a scheme of colours."""
        width, height = size
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        found = self.ask("Page.navigate", url=page.resolve().as_uri())
        if "errorText" in found:
            raise RuntimeError(f"{page}: {found['errorText']}")
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, script: str) -> Any:
        """Return the value of a script in the page."""
        asked = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        return asked["result"].get("value")

    def picture(self, *, whole: bool = False) -> bytes:
        """Return what is shown, as PNG: the window, or the whole page."""
        asked = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(asked["data"])

    def _send(self, message: dict[str, object]) -> None:
        if self._session:
            message["sessionId"] = self._session
        self._writing.write(json.dumps(message).encode() + b"\0")

    def _next(self) -> dict[str, Any]:
        read = bytearray()
        while (byte := self._reading.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium has ended")
            read += byte
        message: dict[str, Any] = json.loads(read)
        return message


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium, and end it; raises FileNotFoundError if there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise FileNotFoundError("Chromium is not installed (`apt-get install chromium`)")
    to_it, writing = os.pipe()
    reading, from_it = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        started = subprocess.Popen(  # noqa: S603 - Chromium, with our own options
            ["/bin/sh", "-c", f'exec "$@" 3<&{to_it} 4>&{from_it}', "sh", program,
             "--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars",
             "--disable-dev-shm-usage", f"--user-data-dir={home}",
             # Root, in a container: there is no sandbox, and the pages are our own.
             *(["--no-sandbox"] if os.geteuid() == 0 else [])],
            pass_fds=(to_it, from_it), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_it)
        os.close(from_it)
        try:
            yield Browser(reading, writing)
        finally:
            started.terminate()
            started.wait(20)


def look(pages: Sequence[Path], folder: Path) -> list[str]:
    """Write pictures of pages into a folder, and return what is wrong with them."""
    folder.mkdir(parents=True, exist_ok=True)
    wrong = []
    with browser() as chromium:
        for page, (size, pixels), scheme in itertools.product(pages, SIZES.items(), SCHEMES):
            chromium.show(page, pixels, scheme)
            name = f"{page.stem}-{size}-{scheme}.png"
            (folder / name).write_bytes(chromium.picture())
            faults = chromium.value(_FAULTS % pixels[0])
            wrong += [f"{page}, {size}, {scheme}: {fault}" for fault in faults]
    return wrong


def main() -> int:
    """Look at the pages that are named, print what is wrong, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, default=[SITE / name for name in PAGES])
    parser.add_argument("--out", type=Path, default=ROOT / ".venv" / "look")
    given = parser.parse_args()
    try:
        wrong = look(given.pages, given.out)
    except (FileNotFoundError, RuntimeError) as error:
        wrong = [str(error)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    print(f"the pictures are in {given.out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
