"""What JSON holds is counted before it is decoded; what is wrong in it is named by field, range and value."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from mm_gateway.core.limits import MAX_JSON_DEPTH, MAX_JSON_OBJECTS, MAX_JSON_VALUES
from mm_gateway.errors import InvalidRequestError
from mm_gateway.protocol import decoding
from mm_gateway.protocol.decoding import convert, decode, measure


class Part(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["text", "image"]
    size: Annotated[int, Meta(ge=1, le=9)] = 1


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=4)]
    share: Annotated[Annotated[float, Meta(gt=0, le=1)] | None, Meta(description="a share")] = None
    parts: Annotated[list[Part], Meta(max_length=2)] | None = None
    words: Annotated[str, Meta(min_length=1)] | Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=3)] | None = None
    biases: dict[Annotated[int, Meta(ge=0)], Annotated[float, Meta(ge=-1, le=1)]] | None = None
    anything: Any = None


decoder = msgspec.json.Decoder(Body)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"name": ""}, "name", "name must have between 1 and 4 characters, got 0"),
        ({"share": 0}, "share", "share must be greater than 0 and at most 1, got 0"),
        ({"share": 1.5}, "share", "share must be greater than 0 and at most 1, got 1.5"),
        ({"share": "a"}, "share", "Invalid value for 'share': Expected `float | null`, got `str`"),
        ({"parts": [{"kind": "text"}] * 3}, "parts", "parts must have at most 2 entries, got 3"),
        ({"parts": [{"kind": "text"}, {"kind": "text", "size": 10}]}, "parts[1].size", "parts[1].size must be between 1 and 9, got 10"),
        ({"parts": [{"kind": "sound"}]}, "parts[0].kind", "Invalid value for 'parts[0].kind': Invalid enum value 'sound'"),
        ({"parts": [{}]}, "parts[0].kind", "You must provide the parameter: parts[0].kind"),
        (
            {"parts": [{"kind": "text", "x": 1}]},
            "parts[0].x",
            "Unrecognized request argument supplied: parts[0].x",
        ),
        ({"words": ["a", ""]}, "words[1]", "words[1] must have at least 1 characters, got 0"),
        ({"words": ["a"] * 4}, "words", "words must have at most 3 entries, got 4"),
        ({"biases": {"1": 0, "7": 2}}, "biases", "biases[7] must be between -1 and 1, got 2"),
        ({"biases": {"5": 0, "x": 0}}, "biases", "Invalid key 'x' in 'biases': Expected `int`, got `str`"),
        ({"biases": {"5": 0, "1.5": 0}}, "biases", "Invalid key '1.5' in 'biases': Expected `int`, got `str`"),
    ],
    ids=str,
)
def test_an_error_names_field_range_and_value(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(decoder, json.dumps({"name": "a", **fields}).encode())
    assert (caught.value.param, str(caught.value)) == (param, message)


def test_a_value_within_a_body_is_named_from_the_body() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        convert({"kind": "text", "size": 0}, Part, "input[3]")
    assert (caught.value.param, str(caught.value)) == ("input[3].size", "input[3].size must be between 1 and 9, got 0")
    with pytest.raises(InvalidRequestError, match=r"supplied: input\[3\].x; there are kind, size$"):
        convert({"kind": "text", "x": 0}, Part, "input[3]")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 1_000_000, b'{"name":' + b"[" * 1000, b'"' * 999_999, b"\\" * 3_000_000], ids=len
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        decode(decoder, body)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("[" + "1," * MAX_JSON_VALUES + "1]", f"up to {MAX_JSON_VALUES}$"),
        ("[" + "{}," * MAX_JSON_OBJECTS + "1]", f"{MAX_JSON_OBJECTS}"),
        ("[" + '"",' * (MAX_JSON_OBJECTS + 1) + "1]", f"{MAX_JSON_OBJECTS} texts"),
        ("[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1), f"{MAX_JSON_DEPTH} levels"),
        ('{"a":' * (MAX_JSON_DEPTH + 1) + "1" + "}" * (MAX_JSON_DEPTH + 1), f"{MAX_JSON_DEPTH} levels"),
    ],
    ids=["values", "objects", "texts", "lists in lists", "objects in objects"],
)
def test_too_much_is_refused_with_the_field_that_holds_it(value: str, word: str) -> None:
    with pytest.raises(InvalidRequestError, match=word) as caught:
        decode(decoder, b'{"name":"a","anything":%b}' % value.encode())
    assert caught.value.param == "anything"


@pytest.mark.parametrize(
    "text", ["[" * 10_000, "," * 2_000_000, '\\"[{' * 300_000, "\\" * 3_000_001, '"' * 600_000], ids=lambda text: text[:4]
)
def test_signs_within_a_text_do_not_count(text: str) -> None:
    assert decode(decoder, json.dumps({"name": "a", "anything": text}).encode()).anything == text


SIGNS = st.text(alphabet='"\\[]{},:a\n', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | SIGNS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SIGNS, inner, max_size=3),
    max_leaves=12,
)


def depth(value: Any) -> int:
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(value=VALUES)
def test_depth_is_counted_exactly(value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "MAX_JSON_DEPTH", 2)
        patch.setattr(decoding, "_PIECE_BYTES", 3)
        if depth(value) <= 2:
            measure(json.dumps(value).encode())
        else:
            with pytest.raises(InvalidRequestError, match="more than 2 levels"):
                measure(json.dumps(value).encode())


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
@pytest.mark.parametrize("place", ['{"anything": %s}', '{"anything": [{"a": [0, %s]}]}'])
def test_a_whole_number_that_nobody_could_write_again_is_refused_by_its_place(place: str, number: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(decoder, (place % number).encode())
    assert caught.value.param == ("anything" if "[" not in place else "anything[0].a[1]")


@pytest.mark.parametrize(
    "value", ["18446744073709551615", "-9223372036854775808", "0.12345678901234567890", '"12345678901234567890123"', "1e22"]
)
def test_what_only_looks_like_one_is_taken(value: str) -> None:
    body = decode(decoder, b'{"name": "a", "anything": ' + value.encode() + b"}")
    assert msgspec.json.decode(msgspec.json.encode(body.anything)) == json.loads(value)
