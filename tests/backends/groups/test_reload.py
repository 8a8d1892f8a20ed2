"""Groups over a reload of models.yaml: what did not change is kept, and what is drained stays so."""

from __future__ import annotations

from mm_gateway.backends.groups.backend import Group
from mm_gateway.catalog import Catalog, build_catalog
from mm_gateway.configuration.group_settings import GroupMember
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings


def settings(delay_s: float = 0.0, weight: float = 1.0) -> Settings:
    return Settings(
        models={
            "all": ModelConfig(model_name="all", backend="group", members=(GroupMember(name="a", weight=weight), GroupMember(name="b"))),
            "a": ModelConfig(model_name="m", backend="mock"),
            "b": ModelConfig(model_name="m", backend="mock", delay_s=delay_s),
        }
    )


def group_of(catalog: Catalog) -> Group:
    found = catalog.resolve("all")
    assert isinstance(found, Group)
    return found


async def test_a_group_is_kept_while_it_and_its_members_are_as_they_were() -> None:
    catalog = build_catalog(settings())
    before = group_of(catalog)
    assert (await catalog.replace(settings())).changed == ()
    assert group_of(catalog) is before
    replaced = await catalog.replace(settings(delay_s=0.1))
    assert {*replaced.changed} == {"all", "b"}
    assert group_of(catalog).members["b"] is catalog.resolve("b")
    await catalog.let_go(replaced.dropped)
    await catalog.close()


async def test_a_drained_member_stays_so_unless_it_became_another() -> None:
    catalog = build_catalog(settings())
    catalog.drain("a", True)
    catalog.drain("b", True)
    await catalog.replace(settings(weight=2.0, delay_s=0.1))
    members = group_of(catalog).router.members
    assert (members["a"].weight, members["a"].draining, members["b"].draining) == (2.0, True, False)
    await catalog.close()
