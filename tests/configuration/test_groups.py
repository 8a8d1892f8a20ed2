"""Groups in models.yaml: what is read, and that every mistake is told before the port opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_gateway.catalog import build_catalog
from mm_gateway.configuration.group_settings import GroupMember
from mm_gateway.configuration.loader import load_settings
from mm_gateway.configuration.settings import Settings
from mm_gateway.errors import ConfigurationError

MEMBERS = """
  a: {model_name: m, backend: mock}
  b: {model_name: m, backend: mock, aliases: [bee]}
"""


def load(folder: Path, groups: str) -> Settings:
    (folder / "models.yaml").write_text(f"models:{MEMBERS}{groups}")
    (folder / "gateway.yaml").write_text("")
    return load_settings(folder / "models.yaml", folder / "gateway.yaml", {})


def test_members_are_names_or_have_keys(tmp_path: Path) -> None:
    config = load(tmp_path, "  all: {backend: group, members: [a, {name: b, weight: 2, max_requests: 4}], strategy: weighted}").models[
        "all"
    ]
    assert config.members == (GroupMember(name="a"), GroupMember(name="b", weight=2.0, max_requests=4))
    assert (config.model_name, config.strategy) == ("all", "weighted")


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ("  all: {backend: group, members: [a, nowhere]}", "model all: members: 'nowhere' is not among the models: a, b, all"),
        ("  all: {backend: group, members: [a, bee]}", "'bee' is not among the models"),
        ("  all: {backend: group, members: []}", "model all: members: a group needs at least one member"),
        ("  all: {backend: group}", "model all: members must be a list of names of other entries, got None"),
        ("  all: {backend: group, members: a}", "members must be a list of names of other entries, got 'a'"),
        ("  all: {backend: group, members: [a, {name: a}]}", "'a' is given twice; its weight says how much it gets"),
        ("  all: {backend: group, members: [all]}", "a group must not hold itself: all -> all"),
        (
            "  x: {backend: group, members: [a, y]}\n  y: {backend: group, members: [z]}\n  z: {backend: group, members: [x, b]}",
            "a group must not hold itself: ",
        ),
        ("  all: {backend: group, members: [{name: a, weight: 0}]}", r"members: got .*Expected `float` > 0.0 - at `\$\[0\].weight`"),
        ("  all: {backend: group, members: [{name: a, weigth: 1}]}", "unknown field `weigth`"),
        ("  all: {backend: group, members: [{weight: 1}]}", "missing required field `name`"),
        ("  all: {backend: group, members: [3]}", "model all: members: got"),
        ("  all: {backend: group, members: [a], strategy: random}", "strategy: got 'random', allowed is least-loaded, round-robin"),
        ("  all: {backend: group, members: [a], routing: {load_factor: 1}}", "routing: got"),
        ("  all: {backend: group, members: [a], dtype: fp32}", "dtype: a group has none, the entries of its members say it"),
        ("  all: {backend: group, members: [a], dtyp: fp32}", "unknown key 'dtyp'; did you mean dtype"),
        ("  all: {model_name: m, backend: mock, members: [a]}", "members: is only allowed with backend: group, this one is mock"),
    ],
)
def test_mistakes_are_told_before_anything_is_served(tmp_path: Path, groups: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load(tmp_path, groups)


def test_a_group_may_hold_groups_and_come_before_them(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "  outer: {backend: group, members: [inner, a]}\n  inner: {backend: group, members: [b]}\n"
        "  again: {backend: group, members: [inner]}",
    )
    catalog = build_catalog(settings)
    assert [info.id for info in catalog.infos()][:5] == ["a", "b", "outer", "inner", "again"]
