"""Texts of models, of their names and of errors that try to become markup, in a real browser."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, Page, expect

from tests.api.page.conftest import ADMIN_KEY, HOSTILE, HOSTILE_NAME, Gateway
from tests.api.page.test_playground import opened, say

pytestmark = pytest.mark.asyncio(loop_scope="session")

ELEMENTS = "main img, main script, main iframe, main svg:not(.chart svg), main u, main i, main [onerror], main [onload], main [onmouseover]"


async def links(tab: Page) -> list[str]:
    return await tab.locator("main a").evaluate_all("links => links.map(link => link.protocol)")


async def test_a_models_text_stays_text(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "hostile")
    await say(tab, HOSTILE)
    reply = tab.locator(".turn.done .text")
    await expect(reply).to_be_visible()
    shown = await reply.inner_text()
    for part in (
        "<img src=x onerror=alert(1)>",
        "<script>alert(2)</script>",
        "</code></pre><iframe",
        "<i>cell</i>",
        "<u>title</u>",
        "<b>code</b>",
    ):
        assert part in shown
    assert "(javascript:alert(4))" in shown  # no link, so it is shown as it stands
    assert await tab.locator(ELEMENTS).count() == 0
    assert set(await links(tab)) <= {"https:", "http:"}
    assert await tab.locator(".turn.user").inner_text() == HOSTILE


async def test_names_of_models_and_errors_stay_text_everywhere(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, HOSTILE_NAME)
    await say(tab, "hello")
    await expect(tab.locator(".turn.done .text")).to_have_text("I have a name")
    await tab.locator(".pane select").first.select_option("failing")
    await say(tab, "hello")
    await expect(tab.locator(".turn.failed .error")).to_have_text(HOSTILE, use_inner_text=False)
    await tab.evaluate("key => sessionStorage.setItem('mm-gateway.admin-key', key)", ADMIN_KEY)
    for view in ("models", "activity"):
        await tab.locator(f"a[href='#{view}']").click()
        await expect(tab.locator("section:not([hidden])").get_by_text(HOSTILE_NAME).first).to_be_visible()
    assert await tab.locator(ELEMENTS).count() == 0


async def test_what_is_put_together_at_random_makes_only_what_markdown_has(tab: Page, gateway: Gateway) -> None:
    """Five thousand texts of what markdown and HTML are made of: no other elements, attributes or addresses come of them."""
    await tab.goto(gateway.url)
    found = await tab.evaluate(
        """async () => {
            const { markdown } = await import("/page/markdown.js");
            const pieces = ["<script>", "</script>", "<img src=x onerror=alert(1)>", "&lt;", "`", "```",
              "~~~js\\n", "*", "**", "[", "]", "(", ")",
              "\\n", "\\n\\n", "|", "|-|-|", "# ", "- ", "1. ", "> ", "javascript:alert(1)", "data:text/html,x", "https://a.b/",
              "https://a.b/\\"onx=\\"", "[1]", "[x](https://a.b)", "[x](java\\nscript:x)", "\\u0000", "\\ud800",
              "é", "'", '"', " ", "\\t", "word"];
            const marks = new Map([["[1]", "javascript:alert(1)"]]);
            let seed = 1;
            const draw = (count) => (seed = (seed * 48271) % 2147483647) % count;
            const known = new Set(("P H3 H4 H5 H6 UL OL LI BLOCKQUOTE DIV TABLE THEAD TBODY TR TH TD "
              + "FIGURE FIGCAPTION SPAN BUTTON PRE CODE STRONG EM A SUP").split(" "));
            const attributes = new Set(["class", "start", "tabindex", "type", "data-t", "href", "title", "target", "rel"]);
            const wrong = [];
            for (let round = 0; round < 5000; round += 1) {
              const text = Array.from({ length: 1 + draw(30) }, () => pieces[draw(pieces.length)]).join("");
              const root = document.createElement("div");
              root.append(...markdown(text, marks));
              for (const element of root.querySelectorAll("*")) {
                const fine = known.has(element.tagName) && [...element.attributes].every(({ name }) => attributes.has(name))
                  && (element.tagName !== "A" || ["http:", "https:"].includes(element.protocol));
                if (!fine) wrong.push([text, element.outerHTML]);
              }
            }
            return wrong.slice(0, 3);
        }"""
    )
    assert found == []


async def test_a_text_that_repeats_itself_takes_time_by_its_length(tab: Page, gateway: Gateway) -> None:
    await tab.goto(gateway.url)
    slow = await tab.evaluate(
        """async () => {
            const { markdown } = await import("/page/markdown.js");
            const slow = {};
            const pieces = ["[", "`", "*", "**a", "[a](", "```\\n", "> ", "|a", "# ", "1. ", " ", "[1]", "[x](https://a.b/", "\\n- "];
            for (const piece of pieces) {
              const started = performance.now();
              markdown(piece.repeat(200000 / piece.length));
              const took_ms = performance.now() - started;
              if (took_ms > 20000) slow[piece] = took_ms;
            }
            return slow;
        }"""
    )
    assert slow == {}


async def test_the_browser_itself_would_refuse(browser: Browser, gateway: Gateway) -> None:
    """Where the page made a mistake, the policy is there: no markup from text, no script within the page, nothing of other servers."""
    tab = await browser.new_page()  # one that has to complain
    await tab.goto(gateway.url)
    outcome = await tab.evaluate(
        """async () => {
            const tried = {};
            const violated = [];
            document.addEventListener("securitypolicyviolation", (event) => violated.push(event.effectiveDirective));
            try { document.body.innerHTML = "<img>"; } catch (error) { tried.markup = error.name; }
            const script = document.createElement("script");
            try { script.text = "window.ran = true"; document.body.append(script); } catch (error) { tried.script = error.name; }
            try { await fetch("https://example.org/"); } catch (error) { tried.fetch = error.name; }
            const styled = document.createElement("p"); styled.setAttribute("style", "color: red"); document.body.append(styled);
            for (let waited = 0; waited < 100 && new Set(violated).size < 3; waited += 1) await new Promise((done) => setTimeout(done, 50));
            return { tried, violated, ran: window.ran ?? null, red: getComputedStyle(styled).color };
        }"""
    )
    await tab.close()
    assert outcome["tried"] == {"markup": "TypeError", "script": "TypeError", "fetch": "TypeError"}
    assert outcome["ran"] is None and outcome["red"] != "rgb(255, 0, 0)"
    assert {"connect-src", "style-src-attr", "require-trusted-types-for"} <= set(outcome["violated"])
