"""What is known of a request to a group when it has ended: who answered, and at whose price."""

from __future__ import annotations

import io
import json

from litestar.testing import AsyncTestClient

from mm_gateway.api.app import create_app
from mm_gateway.api.observation.record import RequestRecord
from mm_gateway.api.observation.request_log import RequestLog
from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.group_settings import GroupMember
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.price import Price
from mm_gateway.configuration.settings import Settings

CHEAP, DEAR = Price(input=1.0, output=2.0), Price(input=5.0, cached_input=0.5, output=1.0)


class Kept:
    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def finished(self, record: RequestRecord) -> None:
        self.records.append(record)


async def test_the_log_names_the_member_and_its_price_is_paid() -> None:
    settings = Settings(
        models={
            "outer": ModelConfig(model_name="outer", backend="group", strategy="fallback", members=(GroupMember(name="all"),)),
            "all": ModelConfig(
                model_name="all", backend="group", strategy="fallback", members=(GroupMember(name="cheap"), GroupMember(name="dear"))
            ),
            "cheap": ModelConfig(model_name="m", backend="mock", price=CHEAP),
            "dear": ModelConfig(model_name="m", backend="mock", price=DEAR),
        }
    )
    catalog, kept, out = build_catalog(settings), Kept(), io.StringIO()
    app = create_app(settings, catalog)
    log = RequestLog("json", out)
    app.state.observers += [kept, log]
    async with AsyncTestClient(app) as client:
        body = {"model": "outer", "messages": [{"role": "user", "content": "!mock tokens=3"}]}
        await client.post("/v1/chat/completions", json=body)
        catalog.drain("cheap", True)
        await client.post("/v1/chat/completions", json=body)
        log.close()
    first, second = kept.records
    assert first.price == Price(input=5.0, cached_input=1.0, output=2.0), "until it is known who answers, the most that it may be"
    assert (first.timeline.members, first.price_paid) == (["cheap"], CHEAP)
    assert (second.timeline.members, second.price_paid) == (["dear"], DEAR)
    assert [json.loads(line)["members"] for line in out.getvalue().splitlines()] == [["cheap"], ["dear"]]
