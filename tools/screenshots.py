"""Pictures of the page for the documentation's site, taken in a real browser, where one is installed: `make screenshots`, `make docs`.

They are made anew, and not kept in the repository, which holds no binary files: docs/page.md shows them where the site is built from.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
from playwright.async_api import Browser, Page

from mm_gateway.api.app import create_app
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.loader import load_settings
from tests.support.browser import installed_browser, running_browser
from tests.support.served import served

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "screenshots"
ADMIN_KEY = "operator"


async def take(url: str) -> None:
    """All pictures, of a gateway with the configuration of the repository."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with running_browser() as browser:
        tab = await _tab(browser, url)
        await _ask(tab, "What is this gateway?")
        await _ask(tab, "How do I add a model?")
        await tab.screenshot(path=FOLDER / "playground.png")
        await _view(tab, "compare")
        await tab.locator("section:not([hidden]) .pane select").nth(1).select_option("mm-orch/search-qa")
        await _ask(tab, "What does max_cached_models mean?", replies=2)
        await tab.screenshot(path=FOLDER / "compare.png")
        await _view(tab, "models")
        await tab.locator("tr[data-row='tiny-chat']").get_by_role("button", name="Pin").click()
        await tab.locator(".badge").wait_for()
        await tab.screenshot(path=FOLDER / "models.png")
        await _view(tab, "usage")
        await tab.get_by_label("By").select_option("key,model")
        await tab.locator("tfoot").wait_for()
        await tab.screenshot(path=FOLDER / "usage.png")
        dark = await _tab(browser, url, color_scheme="dark")
        await _view(dark, "playground")
        await dark.locator(".pane select").first.select_option("mock")
        await dark.locator("textarea.say").first.fill("!mock tokens=5000 delay=0.05")
        await dark.keyboard.press("Enter")
        await _view(dark, "activity")
        await dark.wait_for_timeout(8000)
        await dark.screenshot(path=FOLDER / "activity-dark.png")
        phone = await _tab(browser, url, locale="zh-CN", viewport={"width": 390, "height": 780}, device_scale_factor=2)
        await _ask(phone, "你好！你能做什么？")
        await phone.screenshot(path=FOLDER / "phone-chinese.png")


async def _tab(browser: Browser, url: str, **options: object) -> Page:
    context = await browser.new_context(**{"locale": "en-US", "viewport": {"width": 1200, "height": 820}} | options)  # type: ignore[arg-type]
    tab = await context.new_page()
    await tab.add_init_script(f"sessionStorage.setItem('mm-gateway.admin-key', '{ADMIN_KEY}')")
    await tab.goto(url)
    await tab.locator(".pane option").first.wait_for(state="attached")
    return tab


async def _view(tab: Page, name: str) -> None:
    await tab.locator(f"nav a[href='#{name}']").click()


async def _ask(tab: Page, text: str, replies: int = 1) -> None:
    shown = tab.locator("section:not([hidden]) .turn.done")
    before = await shown.count()
    await tab.locator("section:not([hidden]) textarea.say").fill(text)
    await tab.keyboard.press("Enter")
    await shown.nth(before + replies - 1).wait_for(timeout=120_000)


def main() -> None:
    if installed_browser() is None:
        print("make screenshots: left out, because no browser is installed (make browser)")
        return
    settings = load_settings(ROOT / "config" / "models.yaml", ROOT / "config" / "gateway.yaml", {})
    with tempfile.TemporaryDirectory() as data:
        settings = msgspec.structs.replace(
            settings,
            server=msgspec.structs.replace(settings.server, admin_keys=(ADMIN_KEY,), request_log="off"),
            storage=msgspec.structs.replace(settings.storage, folder=data),
        )
        with served(create_app(settings, build_catalog(settings))) as port:
            asyncio.run(take(f"http://127.0.0.1:{port}/"))
    print(f"make screenshots: {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
