"""What loading imports is left out of garbage collections, in a server and nowhere else."""

from __future__ import annotations

import gc

import pytest

from mm_gateway.configuration.settings import EngineSettings
from mm_gateway.runtime.residency.factories import Factories


@pytest.mark.parametrize("serves", [True, False])
def test_what_is_imported_is_no_work_for_garbage_collections_of_a_server(serves: bool) -> None:
    gc.unfreeze()
    if serves:
        gc.freeze()
    imported: list[object] = []  # in the place of a module's
    try:
        Factories(None, None, EngineSettings(), lambda *_: 0).loader()
        collected = any(one is imported for one in gc.get_objects())
    finally:
        gc.unfreeze()
    assert collected is not serves
