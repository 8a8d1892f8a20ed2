"""The operator's part of the page in a real browser: models, running requests, events, keys."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from mm_gateway.api.app import create_app
from mm_gateway.backends.groups.backend import group
from mm_gateway.catalog import Catalog
from mm_gateway.configuration.api_key import ApiKey, digest_of
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting
from mm_gateway.configuration.settings import ModelConfig, ServerSettings, Settings
from mm_gateway.core import Backend, ChoiceFinished, TextDelta, Usage
from mm_gateway.errors import ModelUnavailableError
from tests.api.page.conftest import ADMIN_KEY, Gateway
from tests.api.page.test_playground import opened, say
from tests.support.scripted_backend import ScriptedBackend, app_over
from tests.support.served import served

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def give_keys(tab: Page, *, client: str = "", admin: str = "") -> None:
    if not await tab.locator("dialog").is_visible():
        await tab.get_by_role("button", name="Keys").click()
    await tab.locator("dialog input[name=client]").fill(client)
    await tab.locator("dialog input[name=admin]").fill(admin)
    await tab.locator("dialog").get_by_role("button", name="Save").click()


async def test_a_model_is_loaded_with_a_bar_of_progress_pinned_and_unloaded(tab: Page, gateway: Gateway) -> None:
    await tab.goto(f"{gateway.url}#models")
    row = tab.locator("tr[data-row='local']")
    await expect(row.locator(".state")).to_have_text("not loaded")
    await expect(row.get_by_role("button")).to_have_count(0)
    await expect(tab.locator("section:not([hidden]) .hint").first).to_contain_text("need an admin key")
    await give_keys(tab, admin=ADMIN_KEY)
    gateway.loader.may_load.clear()
    await row.get_by_role("button", name="Load").click()
    bar = row.get_by_role("progressbar")
    await expect(bar).to_be_visible()
    await expect(bar).to_have_js_property("value", 0.5)
    await expect(row).to_contain_text("at the half")
    gateway.loader.may_load.set()
    await expect(row.locator(".state")).to_have_text("ready")
    await expect(row).to_contain_text("MiB")
    await expect(tab.locator(".memory")).to_contain_text("cpu: ")
    await row.get_by_role("button", name="Pin").click()
    await expect(row.locator(".badge")).to_have_text("pinned")
    await row.get_by_role("button", name="Unpin").click()
    await row.get_by_role("button", name="Unload").click()
    await expect(row.locator(".state")).to_have_text("not loaded")
    await tab.locator("a[href='#activity']").click()
    events = tab.locator(".events li")
    await expect(events.first).to_contain_text("local evicted: unloaded by request")
    await expect(events.nth(1)).to_contain_text("local loaded")


async def test_a_press_that_lasts_longer_than_the_page_takes_to_look_again_is_a_click(tab: Page, gateway: Gateway) -> None:
    await tab.goto(f"{gateway.url}#models")
    await give_keys(tab, admin=ADMIN_KEY)
    row = tab.locator("tr[data-row='local']")
    for name in ("Pin", "Unpin"):
        await row.get_by_role("button", name=name, exact=False).hover()
        await tab.mouse.down()
        await tab.wait_for_timeout(1500)
        await tab.mouse.up()
        await expect(row.locator(".badge")).to_have_count(1 if name == "Pin" else 0)


async def test_a_running_request_is_shown_and_cancelled(tab: Page, gateway: Gateway) -> None:
    await opened(tab, gateway, "mock")
    await give_keys(tab, admin=ADMIN_KEY)
    await say(tab, "!mock tokens=10000 delay=0.02")
    await expect(tab.locator(".turn.model .text")).not_to_be_empty()
    await tab.locator("a[href='#activity']").click()
    cancel = tab.get_by_role("button", name="Cancel mock")
    await expect(cancel).to_be_visible()
    throughput = tab.locator(".chart svg").first
    await expect(throughput.locator("polyline")).to_have_attribute("points", re.compile(r"\S+ \S+"))
    await cancel.click()
    await expect(cancel).to_have_count(0)
    await expect(tab.locator("tr[data-row^='req_']").first).to_contain_text("request_cancelled")
    await tab.locator("a[href='#playground']").click()
    await expect(tab.locator(".turn.failed .error")).to_have_text("The operator of this gateway has ended the request")
    assert not gateway.app.state.admission.tickets


async def test_keys_are_asked_for_and_kept_in_this_tab_alone(tab: Page) -> None:
    backend = ScriptedBackend([TextDelta(0, "tea"), ChoiceFinished(0, "stop"), Usage(5, 4)])
    with served(app_over(backend, api_keys=("user-key",))) as port:
        await tab.goto(f"http://127.0.0.1:{port}/")
        await expect(tab.locator("dialog")).to_be_visible()
        await give_keys(tab, client="wrong")
        await expect(tab.locator(".banner")).to_contain_text("The gateway refused this key.")
        await give_keys(tab, client="user-key", admin="any")
        await expect(tab.locator(".banner")).to_be_hidden()
        await expect(tab.locator("select[id^=model-playground]")).to_have_value("scripted")
        await say(tab, "hello")
        await expect(tab.locator(".turn.done .text")).to_have_text("tea")
        await tab.locator("a[href='#models']").click()
        await expect(tab.locator("section:not([hidden]) .hint").first).to_contain_text("MM_GATEWAY_ADMIN_KEYS")
        await tab.locator("a[href='#playground']").click()
        await tab.locator(".as-code summary").first.click()
        await expect(tab.locator(".as-code pre").first).to_contain_text('-H "Authorization: Bearer $MM_GATEWAY_KEY"')
        assert "user-key" not in await tab.content()
        assert "user-key" not in await tab.evaluate("JSON.stringify(localStorage) + document.cookie")
        await tab.reload()
        await expect(tab.locator(".pane option").first).to_be_attached()
        other = await tab.context.new_page()
        await other.goto(f"http://127.0.0.1:{port}/")
        await expect(other.locator("dialog")).to_be_visible()
        await expect(other.locator("dialog input[name=client]")).to_have_value("")


async def test_what_keys_have_used_is_shown_by_key_model_or_day(tab: Page) -> None:
    backend = ScriptedBackend([TextDelta(0, "tea"), ChoiceFinished(0, "stop"), Usage(1200, 34, cached_tokens=7)], name="tea")
    keys = (ApiKey(digest=digest_of("user-key"), name="<b>ann</b>"),)
    with served(app_over(backend, keys=keys, admin_keys=(ADMIN_KEY,))) as port:
        await tab.goto(f"http://127.0.0.1:{port}/")
        await give_keys(tab, client="user-key", admin=ADMIN_KEY)
        await expect(tab.locator(".pane option").first).to_be_attached()
        await say(tab, "hello")
        await expect(tab.locator(".turn.done")).to_be_visible()
        await tab.locator("a[href='#usage']").click()
        row = tab.locator("tbody tr", has_text="<b>ann</b>")
        await expect(row.locator("td")).to_have_text(["1", "1,200", "7", "34", "0"])
        await expect(tab.locator("tfoot")).to_contain_text("Together")
        await tab.get_by_label("By").select_option("key,model")
        await expect(row.locator("th")).to_have_text(["<b>ann</b>", "tea"])
        await tab.get_by_label("Days (UTC)").select_option("days-1")
        await tab.get_by_label("By").select_option("day")
        await expect(tab.locator("tbody th", has_text=re.compile(r"^\d{4}-\d{2}-\d{2}$"))).to_have_count(1)


async def test_a_gateway_that_is_gone_is_told_and_found_again(tab: Page, gateway: Gateway) -> None:
    await tab.goto(f"{gateway.url}#models")
    await expect(tab.locator("tr[data-row]").first).to_be_visible()
    await tab.context.set_offline(True)
    await expect(tab.locator(".banner")).to_contain_text("cannot be reached")
    await tab.context.set_offline(False)
    await expect(tab.locator(".banner")).to_be_hidden()


async def test_members_of_a_group_are_shown_with_their_health_drained_and_resumed(tab: Page) -> None:
    backends: dict[str, Backend] = {
        "ill": ScriptedBackend([ModelUnavailableError("it burns: <b>fire</b>", retryable=True)], name="ill"),
        "tea": ScriptedBackend([TextDelta(0, "tea"), ChoiceFinished(0, "stop"), Usage(5, 4)], name="tea"),
    }
    routing = GroupRouting(eject_after=1, ejection_s=60.0, retry_delay_s=0.001)
    members = (GroupMember(name="ill"), GroupMember(name="tea"))
    config = ModelConfig(model_name="all", backend="group", members=members, strategy="fallback", routing=routing)
    catalog = Catalog({"all": group("all", config, backends, 0), **backends})
    with served(create_app(Settings(server=ServerSettings(admin_keys=(ADMIN_KEY,))), catalog)) as port:
        await tab.goto(f"http://127.0.0.1:{port}/#models")
        ill, tea = (tab.locator(f"tr[data-row=all] li[data-member={name}]") for name in ("ill", "tea"))
        await expect(ill.locator(".state")).to_have_text("healthy")
        await expect(tab.locator(".members button")).to_have_count(0)
        await give_keys(tab, admin=ADMIN_KEY)
        await tab.locator("a[href='#playground']").click()
        await tab.locator(".pane select").first.select_option("all")
        await say(tab, "hello")
        await expect(tab.locator(".turn.done .text")).to_have_text("tea")
        await tab.locator("a[href='#models']").click()
        await expect(ill.locator(".state")).to_have_text("ejected")
        await expect(ill).to_contain_text("1 failed")
        await expect(ill).to_contain_text("it burns: <b>fire</b>")
        await tab.get_by_role("button", name="Drain tea").click()
        await expect(tea.locator(".badge")).to_have_text("drained")
        assert catalog.groups()[0].router.members["tea"].draining
        await tab.get_by_role("button", name="中文").click()
        await expect(tea.locator(".badge")).to_have_text("已排空")
        await tab.get_by_role("button", name="恢复 tea").click()
        await expect(tea.locator(".badge")).to_have_count(0)
        assert not catalog.groups()[0].router.members["tea"].draining
