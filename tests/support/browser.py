"""A real browser: the Chromium of the system, which `make browser` installs, driven by playwright; its own browsers are not downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def installed_browser() -> str | None:
    """Path of the first that is installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    path = installed_browser()
    assert path is not None, "no browser is installed: make browser"
    # Chromium refuses to run as root within its sandbox; containers run tests as root, and may have little room in /dev/shm.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


class Complaints:
    """What a tab complained about: errors of scripts, violations of the content security policy, dialogs that a script opened."""

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        # An answer of 4xx or 5xx is in the console too, and is what a test may be about.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.found.append(f"console: {message.text}")

    async def _dialog(self, dialog: object) -> None:
        self.found.append("a dialog was opened")
        await dialog.dismiss()  # type: ignore[attr-defined]
