"""The table of limits in the documentation has the numbers of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_gateway.core import limits

PAGE = (Path(__file__).parents[3] / "docs" / "request-limits.md").read_text()
LIMITS = {name: value for name, value in vars(limits).items() if name.startswith("MAX_")}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_in_the_table(name: str) -> None:
    assert f" {LIMITS[name]:,} " in PAGE.replace("\n", " "), name
