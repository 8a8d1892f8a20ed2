"""Every field that Anthropic's API has, previews included, is served, harmless or refused by its name."""

from __future__ import annotations

from typing import get_type_hints

import msgspec
import pytest

from mm_gateway.protocol.message_request import CountTokensRequest, MessageMetadata, MessageRequest, MessageToolChoice, OutputConfig
from mm_gateway.protocol.policy import policies

types = pytest.importorskip("anthropic.types")
beta = pytest.importorskip("anthropic.types.beta")


@pytest.mark.parametrize(
    ("module", "name", "ours"),
    [
        ("message_create_params", "MessageCreateParamsStreaming", MessageRequest),
        ("message_count_tokens_params", "MessageCountTokensParams", CountTokensRequest),
    ],
)
def test_no_field_of_the_installed_anthropic_package_is_unknown(module: str, name: str, ours: type[msgspec.Struct]) -> None:
    for theirs in (types, beta):
        assert set(get_type_hints(getattr(getattr(theirs, module), name))) - set(policies(ours)) == set()


def test_no_field_of_an_object_is_unknown() -> None:
    assert set(get_type_hints(beta.BetaOutputConfigParam)) <= set(policies(OutputConfig))
    assert set(get_type_hints(types.MetadataParam)) <= set(policies(MessageMetadata))
    assert set(get_type_hints(types.ToolChoiceToolParam)) <= set(policies(MessageToolChoice))


@pytest.mark.parametrize(
    ("name", "policy"), [("thinking", "served"), ("cache_control", "harmless"), ("container", "not served"), ("betas", "harmless")]
)
def test_a_field_says_its_policy(name: str, policy: str) -> None:
    assert policies(MessageRequest)[name] == policy
