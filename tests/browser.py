"""Pages that the pipeline writes, in a real browser: how it is started, and what every page is asked."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip

# WCAG 2.2, 1.4.3: the contrast of every text with the nearest background behind it.
CONTRAST = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 * 255 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (one) => {
    const colour = one ? channels(getComputedStyle(one).backgroundColor) : [255, 255, 255];
    return colour.length < 4 || colour[3] > 0 ? colour : behind(one.parentElement);
  };
  const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const poor = new Set();
  for (const one of [...document.querySelectorAll("body *:not(script)")].filter(hasText)) {
    const both = [luminance(channels(getComputedStyle(one).color)), luminance(behind(one))];
    if ((Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5) poor.add(`${one.localName}.${one.className}`);
  }
  return [...poor];
}"""
UNNAMED = """() => [...document.querySelectorAll("select, button, a, .scroll, form, nav")].filter((one) => {
  const text = one.localName !== "select" && one.textContent.trim();
  return !text && !one.ariaLabel && !one.labels?.length;
}).length"""


@contextmanager
def opened_browser() -> Iterator:
    """A headless Chromium; skips the test where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements-dev.txt")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()
