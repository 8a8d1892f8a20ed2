"""How members of this process are looked at: by what is known of them, without loading anything for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mm_gateway.backends import local
from mm_gateway.backends.groups.backend import Group
from mm_gateway.backends.local import LocalBackend
from mm_gateway.backends.mock.backend import MockBackend
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting
from mm_gateway.configuration.settings import ModelConfig
from mm_gateway.core import ChatInput, GenerationConfig, GenerationRequest, Message, TextDelta
from mm_gateway.errors import ModelUnavailableError
from mm_gateway.runtime.real_model_manager import RealModelManager
from mm_gateway.workflows.all_workflows import WORKFLOWS
from mm_gateway.workflows.backend import WorkflowBackend
from tests.support.served import until

REQUEST = GenerationRequest(
    request_id="r", model="all", input=ChatInput((Message("user", "Hi"),)), config=GenerationConfig(max_new_tokens=2)
)


def mock() -> MockBackend:
    return MockBackend("mock", ModelConfig(model_name="mock", backend="mock"), 0)


async def text(group: Group) -> str:
    return "".join([event.text async for event in group.generate(REQUEST) if isinstance(event, TextDelta)])


async def test_a_local_member_whose_load_failed_is_ejected_before_more_requests_try_it(tmp_path: Path) -> None:
    manager = RealModelManager()
    broken = LocalBackend("broken", ModelConfig(model_name="broken", path=str(tmp_path), device="cpu"), manager, 0)
    routing = GroupRouting(probe_interval_s=0.02, retry_delay_s=0.001, ejection_s=60.0)
    members = (GroupMember(name="broken"), GroupMember(name="mock"))
    config = ModelConfig(model_name="all", backend="group", members=members, strategy="fallback", routing=routing)
    all = Group("all", config, {"broken": broken, "mock": mock()}, 0)
    try:
        assert not await broken.probe(1.0), "nothing is known of one that was never loaded"
        assert await text(all)
        member = all.router.members["broken"]
        await until(lambda: member.health.state(time.monotonic()) == "ejected")
        assert "it failed 0 s ago: " in member.health.last_failure
        assert member.requests == member.failures == 1
        assert all.router.members["mock"].health.state(time.monotonic()) == "healthy"
        assert await text(all)
        assert member.requests == 1
    finally:
        await all.close()
        manager.close()


async def test_a_failure_speaks_against_a_local_model_for_a_time_and_until_it_is_loaded(
    llama_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = RealModelManager()
    path = tmp_path / "model"
    model = LocalBackend("model", ModelConfig(model_name="model", path=str(path), device="cpu"), manager, 0)
    try:
        with pytest.raises(Exception, match="model"):
            manager.load_model(model.config)
        with pytest.raises(ModelUnavailableError, match="it failed 0 s ago"):
            await model.probe(1.0)
        with monkeypatch.context() as patched:
            patched.setattr(local, "FAILED_FOR_S", 0.0)
            assert not await model.probe(1.0), "whether it is mended, a request will tell"
        path.symlink_to(llama_checkpoint)
        manager.load_model(model.config)
        assert await model.probe(1.0)
        manager.unload(model.config)
        assert not await model.probe(1.0)
    finally:
        manager.close()


async def test_a_mock_serves_and_a_workflow_as_its_model_does() -> None:
    workflow = next(iter(WORKFLOWS.values()))()
    assert await mock().probe(1.0)
    assert await WorkflowBackend("w", workflow, mock(), 0).probe(1.0)
