"""The playground in a real browser: streams, stop, thoughts, tools, workflows, code to copy, two models side by side."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from playwright.async_api import Page, expect

from mm_gateway.core import ChatInput, GenerationRequest
from tests.api.page.conftest import Gateway
from tests.support.served import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def opened(tab: Page, gateway: Gateway, model: str, view: str = "playground") -> None:
    await tab.goto(f"{gateway.url}#{view}")
    for select in await tab.locator("section:not([hidden]) .pane select").all():
        await expect(select.locator("option")).not_to_have_count(0)
        await select.select_option(model)


async def say(tab: Page, text: str) -> None:
    field = tab.locator("section:not([hidden]) textarea.say")
    await field.fill(text)
    await field.press("Enter")


async def test_a_reply_is_streamed_and_says_what_it_took(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock")
    await say(tab, "!mock tokens=10000 delay=0.02")
    text = tab.locator(".turn.running .text")
    await expect(text).not_to_be_empty()
    await expect(text).not_to_have_text(await text.inner_text())  # it grows
    await tab.keyboard.press("Escape")
    await expect(tab.locator(".turn.stopped")).to_be_visible()
    await say(tab, "!mock tokens=30")
    await expect(tab.locator(".turn.done footer")).to_contain_text("+ 30 tokens")
    await expect(tab.locator(".turn.user").nth(1)).to_have_text("!mock tokens=30")
    await expect(tab.locator("textarea.say").first).to_be_focused()


async def test_the_conversation_goes_on_and_leaves_out_what_failed(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock")
    for count, text in enumerate(("!mock tokens=2", "!mock error=429", "third"), 1):
        await say(tab, text)
        await expect(tab.locator(".turn.model:not(.waiting, .running)")).to_have_count(count)
    await expect(tab.locator(".turn.failed .error")).to_have_text("The mock was told to be busy")
    await tab.locator(".as-code summary").first.click()
    await expect(tab.locator(".as-code pre").first).not_to_be_empty()
    command = await tab.locator(".as-code pre").first.inner_text()
    messages = json.loads(command[command.index("-d '") + 4 : -1])["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[2]["content"] == "third"
    await tab.get_by_role("button", name="New conversation").first.click()
    await expect(tab.locator(".turn")).to_have_count(0)


async def test_escape_stops_the_reply_here_and_at_the_gateway(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock")
    await say(tab, "!mock tokens=10000 delay=0.02")
    await expect(tab.locator(".turn.model .text")).not_to_be_empty()
    await tab.keyboard.press("Escape")
    await expect(tab.locator(".turn.stopped footer")).to_contain_text("stopped")
    await until(lambda: not gateway.app.state.admission.tickets)
    await expect(tab.get_by_role("button", name="Send").first).to_be_enabled()


async def test_a_wait_says_why(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock")
    await say(tab, "!mock load=30")
    await expect(tab.locator(".turn.model .note")).to_contain_text("loading")
    await tab.get_by_role("button", name="Stop").first.click()
    await expect(tab.locator(".turn.stopped")).to_be_visible()


async def test_thoughts_are_folded_and_stay_open_once_opened(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock")
    await say(tab, "!mock think=10000 delay=0.02")
    thought = tab.locator("details.thought")
    await expect(thought.locator("summary")).to_have_text("Thinking …")
    await expect(thought.locator("p")).to_be_hidden()
    await thought.locator("summary").click()
    await expect(thought.locator("p")).to_be_visible()
    await expect(thought.locator("p")).not_to_have_text(await thought.locator("p").inner_text())  # it grows
    await expect(thought.locator("summary")).to_be_focused()
    await tab.keyboard.press("Escape")
    await expect(thought.locator("summary")).to_have_text("Thought")
    await expect(thought.locator("p")).to_be_visible()


async def test_a_call_is_shown_and_goes_on_with_the_result_that_is_given(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock")
    await tab.locator(".parameters summary").first.click()
    tool = {
        "type": "function",
        "function": {"name": "get_time", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    await tab.locator("textarea[name=tools]").first.fill("[no JSON")
    await say(tab, "What time is it?")
    await expect(tab.locator(".parameters .error").first).to_contain_text("Tools")
    await expect(tab.locator("textarea[name=tools]").first).to_be_focused()
    await tab.locator("textarea[name=tools]").first.fill(json.dumps([tool]))
    await tab.locator("input[name=temperature]").first.fill("0.5")
    await tab.get_by_role("button", name="Send").first.click()
    call = tab.locator(".call")
    await expect(call.locator("summary code")).to_have_text("get_time")
    await call.locator("textarea").fill("12:00")
    await tab.get_by_role("button", name="Give result").click()
    await expect(tab.locator(".turn.tool")).to_contain_text("12:00")
    await expect(tab.locator(".turn.done .text").nth(1)).not_to_be_empty()


async def test_a_workflow_shows_its_stages_and_links_only_to_sources_of_the_web(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mm-orch/look-up")
    await say(tab, "tea?")
    await expect(tab.locator(".turn.done")).to_be_visible()
    stages = tab.locator(".stages li")
    await expect(stages).to_have_count(2)
    await expect(stages.first).to_contain_text("1 of 3 pages failed")
    links = tab.locator(".turn.model a")
    await expect(links).to_have_count(2)  # the mark in the text and the source below
    for link in await links.all():
        assert await link.get_attribute("href") == "https://example.org/tea"
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    await expect(links.first).to_have_text("[1]")
    await expect(tab.locator(".sources li").nth(1)).to_contain_text("<b>Evil</b>")


async def test_two_models_answer_the_same_side_by_side(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock", "compare")
    await tab.locator("section:not([hidden]) .pane select").nth(1).select_option("tea")
    await say(tab, "!mock tokens=5")
    await expect(tab.locator(".turn.done")).to_have_count(2)
    first, second = tab.locator("section:not([hidden]) .pane").nth(0), tab.locator("section:not([hidden]) .pane").nth(1)
    await expect(second.locator(".text")).to_have_text("It is 🍵: [1] [2]")
    await expect(first.locator(".text")).not_to_have_text("It is 🍵: [1] [2]")
    left, right = await first.bounding_box(), await second.bounding_box()
    assert left and right and left["y"] == right["y"] and left["x"] < right["x"]


async def test_the_code_sends_the_same_request_whatever_stands_in_it(tab: Page, gateway: Gateway) -> None:
    """Quotes, commands and ends of lines of several alphabets."""
    await opened(tab, gateway, "tea")
    text = 'it\'s "quoted" $(touch pwned) `id` \\ \\u0041 ${HOME} !! 你好\u2028\u0085\n\'; rm -rf x; \'""" # {} %s 🍵\x7f'
    await tab.locator(".as-code summary").first.click()
    await tab.locator("textarea.say").first.fill(text)
    shell, program = [await tab.locator(".as-code pre").nth(index).inner_text() for index in (0, 1)]
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    asked: list[GenerationRequest] = gateway.app.state.catalog.resolve("tea").requests
    asked.clear()
    for command in (["bash", "-c", shell.replace("curl -N", "curl -sSN --fail-with-body")], [sys.executable, "-c", program]):
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=clean, timeout=60)
        assert done.returncode == 0 and "🍵" in done.stdout, done.stderr
    assert [request.input.messages[0].content for request in asked if isinstance(request.input, ChatInput)] == [text, text]
