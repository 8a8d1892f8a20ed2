"""How large a grammar may be. Beyond these numbers the compiler takes seconds, or recurses deeper than a thread's stack."""

from __future__ import annotations

from mm_gateway.errors import InvalidRequestError

MAX_BYTES = 1 << 20
"""Of one grammar: a schema, a Lark grammar, all choices, the schemas of all tools together."""
MAX_JSON_DEPTH = 100
"""Objects and arrays inside each other. llguidance's JSON parser ends at 128."""
MAX_DEFINITIONS = 2_000
"""Entries of `$defs` and `definitions`."""
MAX_PROPERTIES = 1_000
"""Entries of one `properties`: compiling optional ones takes time that grows with their square."""
MAX_REFERENCE_DEPTH = 200
"""`$ref`s that lead to each other, and Lark rules likewise: the compiler recurses."""
MAX_RULES = 2_000
MAX_CHOICES = 10_000
MAX_REGEX_BYTES = 32 << 10
MAX_REGEX_SIZE = 50_000
"""Characters and classes of a regular expression, each counted as often as its repetitions allow: `([ab]c){1000}` has 2,000."""


def check(param: str, what: str, size: int, limit: int) -> None:
    """Raises InvalidRequestError where a size is beyond its limit; what: `definitions`, `bytes of regular expression`…"""
    if size > limit:
        raise InvalidRequestError(f"{param} is too large a grammar: {size} {what}, at most {limit} are allowed", param=param)
