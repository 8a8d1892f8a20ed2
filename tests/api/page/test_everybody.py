"""The page for everybody, in a real browser: by keyboard alone, on a phone, in Chinese, in the dark; and the description of the API."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, Page, expect

from tests.api.page.conftest import ADMIN_KEY, Gateway
from tests.api.page.test_playground import opened, say
from tests.support.browser import Complaints

pytestmark = pytest.mark.asyncio(loop_scope="session")

VIEWS = ("playground", "compare", "models", "activity", "usage")


async def focus(tab: Page, name: str) -> None:
    """Press Tab until something of that name has the focus."""
    for _ in range(60):
        await tab.keyboard.press("Tab")
        if await tab.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent") == name:
            return
    raise AssertionError(f"the keyboard does not lead to {name!r}")


async def test_the_keyboard_alone_is_enough(tab: Page, gateway: Gateway) -> None:
    gateway.loader.may_load.set()
    await tab.goto(gateway.url)
    await expect(tab.locator("textarea.say").first).to_be_focused()
    await focus(tab, "Skip to the content")
    await tab.keyboard.press("Enter")
    await expect(tab.locator("main")).to_be_focused()
    await focus(tab, "Keys")
    await tab.keyboard.press("Enter")
    await expect(tab.locator("dialog input[name=client]")).to_be_focused()
    await tab.keyboard.press("Tab")
    await tab.keyboard.type(ADMIN_KEY)
    await tab.keyboard.press("Enter")
    await expect(tab.locator("dialog")).to_be_hidden()
    await focus(tab, "Models")
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("button", name="Load local")).to_be_visible()
    await focus(tab, "Load local")
    outline = await tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("button", name="Unload local")).to_be_focused()  # also after rows were drawn anew
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("button", name="Load local")).to_be_visible()
    await focus(tab, "Playground")
    await tab.keyboard.press("Enter")
    await expect(tab.locator("textarea.say").first).to_be_focused()
    await tab.keyboard.type("!mock tokens=3")
    await tab.keyboard.press("Shift+Enter")
    await tab.keyboard.type("second line")
    await tab.keyboard.press("Enter")
    await expect(tab.locator(".turn.done")).to_be_visible()
    assert await tab.locator(".turn.user").inner_text() == "!mock tokens=3\nsecond line"


async def test_nothing_is_cut_on_a_small_phone(tab: Page, gateway: Gateway) -> None:
    width = 320
    await tab.set_viewport_size({"width": width, "height": 700})
    await opened(tab, gateway, "hostile")
    await tab.evaluate("key => sessionStorage.setItem('mm-gateway.admin-key', key)", ADMIN_KEY)
    await say(tab, "x" * 300)
    await expect(tab.locator(".turn.done")).to_be_visible()
    for view in VIEWS:
        await tab.locator(f"nav a[href='#{view}']").click()
        if view == "models":
            await expect(tab.get_by_role("button", name="Load local")).to_be_visible()
        if view == "activity":
            await expect(tab.locator("tr[data-row^='req_']").first).to_be_visible()
        assert await tab.evaluate("document.documentElement.scrollWidth") == width, view
        small = await tab.locator("button:visible, nav a:visible").evaluate_all(
            "all => all.map(each => each.getBoundingClientRect()).filter(({ width, height }) => width < 24 || height < 24).length"
        )
        assert small == 0, view


async def test_chinese_readers_get_chinese_and_may_switch(browser: Browser, gateway: Gateway) -> None:
    context = await browser.new_context(locale="zh-CN")
    tab = await context.new_page()
    complaints = Complaints(tab)
    await opened(tab, gateway, "mock")
    await expect(tab.locator("html")).to_have_attribute("lang", "zh")
    await expect(tab.locator("nav a").first).to_have_text("试用")
    await say(tab, "!mock think=5 tokens=5")
    await expect(tab.locator(".thought summary")).to_have_text("思考过程")
    for view in VIEWS:
        await tab.locator(f"nav a[href='#{view}']").click()
        await tab.wait_for_timeout(100)
        shown = await tab.locator("main > section:not([hidden])").inner_text()
        words = set(re.findall(r"\b[A-Z][a-z]{3,}\b", shown)) - {"Python", "Shift", "Enter"}
        assert view == "models" or not words - set(re.findall(r"\w+", await tab.locator(".turn .text").first.inner_text())), (view, words)
    await tab.locator("nav a").first.click()
    await tab.get_by_role("button", name="English").click()
    await expect(tab.locator("nav a").first).to_have_text("Playground")
    await expect(tab.locator(".thought summary")).to_have_text("Thought")
    await expect(tab.locator("textarea.say").first).to_have_attribute("placeholder", re.compile("Ask something"))
    await tab.reload()
    await expect(tab.locator("nav a").first).to_have_text("Playground")
    await context.close()
    assert complaints.found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_texts_can_be_read_in_the_light_and_in_the_dark(tab: Page, gateway: Gateway, scheme: str) -> None:
    """WCAG's contrast of 4.5 to 1 for each colour of text on each ground (https://www.w3.org/TR/WCAG22/#contrast-minimum)."""
    await tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await tab.goto(gateway.url)
    colors = await tab.evaluate(
        """() => {
            const probe = document.createElement("p");
            document.body.append(probe);
            const of = (name) => {
              probe.style.color = `var(--${name})`;
              return getComputedStyle(probe).color.match(/[0-9]+/g).slice(0, 3).map(Number);
            };
            const names = ["ground", "raised", "text", "quiet", "accent", "on-accent", "bad", "warn", "good"];
            return Object.fromEntries(names.map((name) => [name, of(name)]));
        }"""
    )
    assert (sum(colors["ground"]) < 200) == (scheme == "dark")
    for ground in ("ground", "raised"):
        for text in ("text", "quiet", "accent", "bad", "warn", "good"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    assert contrast(colors["on-accent"], colors["accent"]) >= 4.5


def contrast(one: list[int], other: list[int]) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: list[int]) -> float:
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in (value / 255 for value in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


async def test_the_description_of_the_api_asks_nobody_else(tab: Page, gateway: Gateway) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    await tab.goto(gateway.url)
    await tab.get_by_role("link", name="API").click()
    await expect(tab).to_have_title(re.compile("the API$"))
    await tab.locator("nav a", has_text="POST /v1/chat/completions").click()
    await expect(tab.locator("article", has_text="POST /v1/chat/completions").first).to_be_in_viewport()
    assert all(url.startswith(gateway.url) for url in asked)
