"""Random JSON schemas of everything that the grammar engine enforces, and a bit of what it does not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mm_gateway.runtime.grammars.enforceable import FORMATS

_PATTERNS = ["^a+$", "b", '^[^\\\\"]{2,3}$', r"^\d{3}-x|y$", "^(é|ß)$"]
_numbers = st.integers(-1000, 1000) | st.sampled_from([0, 0.001, 0.01, 0.5, 1.5, 1e10])
_leaves = st.one_of(
    st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": st.integers(0, 3), "maxLength": st.integers(3, 6)}),
    st.fixed_dictionaries({"type": st.just("string"), "format": st.sampled_from([*sorted(FORMATS), "phone"])}),
    st.fixed_dictionaries({"type": st.just("number")}, optional={"exclusiveMinimum": _numbers, "maximum": _numbers}),
    st.fixed_dictionaries({"type": st.just("integer")}, optional={"minimum": _numbers, "exclusiveMaximum": _numbers}),
    st.fixed_dictionaries({"enum": st.lists(st.sampled_from([1, "a", None, True, 2.5, [1], {"a": 1}]), min_size=1, unique_by=repr)}),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"]), "multipleOf": st.sampled_from([1, 3, 0.5])}),
    st.fixed_dictionaries({"type": st.just("string"), "pattern": st.sampled_from(_PATTERNS)}),
    st.sampled_from([{"type": "boolean"}, {"type": ["string", "null"], "maxLength": 4}, {"const": "b"}, {}, {"$ref": "#/$defs/a"}]),
)
_names = st.sampled_from(["a", "b", "c"])


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(_names, inner, max_size=3)},
            optional={
                "required": st.lists(_names, unique=True),
                "additionalProperties": st.booleans() | inner,
                "patternProperties": st.dictionaries(st.sampled_from(["^x", "a$"]), inner, max_size=1),
                "maxProperties": st.integers(0, 4),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array"), "maxItems": st.integers(1, 3)},
            optional={
                "items": inner,
                "minItems": st.integers(0, 2),
                "prefixItems": st.lists(inner, max_size=2),
                "uniqueItems": st.booleans(),
            },
        ),
        st.builds(
            lambda members, key: {key: members}, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["anyOf", "oneOf", "allOf"])
        ),
    )


def json_schemas() -> st.SearchStrategy[dict[str, Any]]:
    """`#/$defs/a` leads to a schema, which may lead to itself."""
    bodies = st.recursive(_leaves, _around, max_leaves=6)
    return st.builds(lambda body, other: {**body, "$defs": {"a": other}}, bodies, bodies)
