"""A page as headless Chromium shows it, without a driver: states go in by the address."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
_SECONDS = 300

# Runs after the page's own script, visits one state after another and writes down what it sees.
_VISITOR = """
<script>
const errors = [], seen = [];
window.addEventListener("error", (event) => errors.push(String(event.message)));
async function visit(states) {
  for (const state of states) {
    const arrived = new Promise((done) => {
      window.addEventListener("hashchange", done, { once: true });
    });
    window.location.hash = state;
    await arrived;
    seen.push(%s);
  }
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify({ errors, seen });
  document.body.append(told);
}
visit(%s);
</script>
"""


def shown(page: Path, address: str = "") -> str:
    """Return the document after its script has run, at `page#address`."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
        # Virtual time: the page is dumped when it has come to rest, not after a guessed while.
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom"]
        target = page.resolve().as_uri() + (f"#{address}" if address else "")
        done = subprocess.run(
            [*command, target], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    return done.stdout


def text_of(document: str, identifier: str) -> str:
    """Return the text of an element without elements inside."""
    found = re.search(rf'id="{identifier}"[^>]*>([^<]*)<', document)
    assert found, f"there is no '{identifier}'"
    return unescape(found[1])


def visited(page: Path, states: Sequence[str], expression: str) -> list[Any]:
    """Return what the JavaScript `expression` is in each of `states` of one visit.

    The visitor is a script of its own, in a copy of the page that allows any.
    """
    text = page.read_text(encoding="utf-8")
    text, count = re.subn(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", text)
    assert count == 1
    copy = page.with_name(f"visited_{page.name}")
    visitor = _VISITOR % (expression, json.dumps(list(states)))
    copy.write_text(text.replace("</body>", f"{visitor}</body>"), encoding="utf-8")
    told = json.loads(text_of(shown(copy), "told"))
    assert told["errors"] == []
    return list(told["seen"])


PHONE, DESKTOP = 390, 1280
"""Widths of windows in pixels."""
_MEASURE = """
<script>
const told = document.createElement("pre");
told.id = "told";
told.textContent = JSON.stringify(%s);
document.body.append(told);
</script>
"""


def on_screen(page: Path, width: int, *, dark: bool, height: int = 1600) -> Path:
    """Return a screenshot of a page, a PNG beside it."""
    picture = page.with_name(f"{page.stem}_{width}_{'dark' if dark else 'light'}.png")
    _chromium(page, width, height, dark, f"--screenshot={picture}", "--hide-scrollbars")
    return picture


def measured(page: Path, width: int, expression: str, *, dark: bool = False) -> Any:
    """Return what the JavaScript `expression` is in a window of a width, in pixels."""
    text = page.read_text(encoding="utf-8")
    text, count = re.subn(r"default-src 'none'", "default-src 'unsafe-inline' data:", text)
    assert count == 1
    copy = page.with_name(f"measured_{page.name}")
    copy.write_text(text.replace("</body>", f"{_MEASURE % expression}</body>"), encoding="utf-8")
    return json.loads(text_of(_chromium(copy, width, 1600, dark, "--dump-dom"), "told"))


def _chromium(page: Path, width: int, height: int, dark: bool, *options: str) -> str:
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += [f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", *options]
        done = subprocess.run(
            [*command, page.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    return done.stdout
