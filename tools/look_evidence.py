"""Look at pages in a real browser, at the sizes of a phone and a laptop, and say what is wrong.

Usage: look_evidence.py OUT PAGE.html...   (writes OUT/PAGE-phone-light.png ..., OUT/PAGE.pdf)

Needs Chromium (Debian's). It is spoken to through its pipe (DevTools protocol): no port is open,
and nothing but the page itself may be loaded.
"""

import base64
import itertools
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

# What a page says of itself: how wide it is, its headings, its pictures, what it would run or load.
_FACTS = """(() => {
  const all = [...document.querySelectorAll('*')];
  const wide = all.filter(e => !e.closest('svg') && e.getBoundingClientRect().right
    > document.documentElement.clientWidth + 1);
  const pictures = all.filter(e => e.matches('img, svg, canvas, object, video'));
  const named = e => e.getAttribute('aria-hidden') === 'true' || e.getAttribute('alt')
    || (e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean).every(
      id => (document.getElementById(id) || {}).textContent) && e.hasAttribute('aria-labelledby');
  return {
    width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    client: document.documentElement.clientWidth,
    wide: wide.map(e => e.tagName + ' ' + e.textContent.slice(0, 40)),
    headings: all.filter(e => /^H[1-6]$/.test(e.tagName)).map(e => Number(e.tagName[1])),
    pictures: pictures.length,
    nameless: pictures.filter(e => !named(e)).map(e => e.outerHTML.slice(0, 80)),
    scripts: all.filter(e => e.tagName === 'SCRIPT'
      || [...e.attributes].some(a => a.name.startsWith('on'))).length,
    styled: getComputedStyle(document.body).maxWidth, lang: document.documentElement.lang,
    title: document.title, ground: getComputedStyle(document.body).backgroundColor,
  };
})()"""


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

    def open(self, page: Path, size: str, theme: str) -> dict[str, Any]:
        """Open a page at a size and in a theme; return what it says of itself."""
        width, height = SIZES[size]
        self._metrics(width, height, size)
        media = [{"name": "prefers-color-scheme", "value": theme}]
        self.ask("Emulation.setEmulatedMedia", media="", features=media)
        self.events.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        facts: dict[str, Any] = self.ask("Runtime.evaluate", expression=_FACTS, returnByValue=True)[
            "result"
        ]["value"]
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
        raise RuntimeError("there is no chromium")
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


def problems(facts: dict[str, Any], page: Path) -> Iterator[str]:
    """Yield what is wrong with a page."""
    if facts["width"] > facts["client"] or facts["wide"]:
        yield f"it is wider than the window: {facts['width']} > {facts['client']} {facts['wide']}"
    levels = facts["headings"]
    if levels[:1] != [1] or levels.count(1) != 1:
        yield f"it does not begin with its only h1: {levels}"
    if any(after > before + 1 for before, after in itertools.pairwise(levels)):
        yield f"a level of headings is left out: {levels}"
    if facts["nameless"]:
        yield f"pictures without a text: {facts['nameless']}"
    if facts["scripts"]:
        yield f"{facts['scripts']} scripts"
    if facts["requests"] != [page.resolve().as_uri()]:
        yield f"it loads more than itself: {facts['requests']}"
    if facts["complaints"]:
        yield f"the browser complains: {facts['complaints']}"
    if not facts["lang"] or not facts["title"]:
        yield "it has no language or no title"


def look(pages: list[Path], out: Path) -> list[str]:
    """Take pictures of pages at each size and in each theme; return what is wrong with them."""
    out.mkdir(parents=True, exist_ok=True)
    found = []
    with browser() as one:
        for page in pages:
            grounds = set()
            for size in SIZES:
                for theme in THEMES:
                    facts = one.open(page, size, theme)
                    grounds.add(facts["ground"])
                    name = f"{page.stem}-{size}-{theme}"
                    found += [f"{name}: {words}" for words in problems(facts, page)]
                    (out / f"{name}.png").write_bytes(one.picture(facts, size))
            if len(grounds) != len(THEMES):
                found.append(f"{page.stem}: light and dark are the same")
            (out / f"{page.stem}.pdf").write_bytes(one.pdf())
    return found


def main() -> None:
    """Look at the pages that are named."""
    out, *pages = map(Path, sys.argv[1:])
    found = look(pages, out)
    for words in found:
        print(words)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
