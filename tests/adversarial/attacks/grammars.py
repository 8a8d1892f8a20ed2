"""Schemas, regular expressions, Lark grammars, choices and tools that are hard to compile, or to follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.adversarial.attack import CHAT, OK, REFUSED, RESPONSES, SERVED_OR_REFUSED, Attack, Json, Target, asking, chat, posting


def chained(length: int, keyword: str = "$defs") -> Json:
    """d0 is d1, which is d2, and so on."""
    definitions = {f"d{i}": {"$ref": f"#/{keyword}/d{i + 1}"} for i in range(length)}
    return {"$ref": f"#/{keyword}/d0", keyword: definitions | {f"d{length}": {"type": "integer"}}}


def formatted(schema: Json) -> Json:
    return asking(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def tool(schema: Json, name: str = "call_me") -> Json:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def of(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def nested(levels: int, inner: Json) -> Json:
    for _ in range(levels):
        inner = of(a=inner)
    return inner


def _schema(name: str, make: Callable[[], Json], answers: frozenset[int] = SERVED_OR_REFUSED, **rest: Any) -> Attack:
    return posting(name, lambda: formatted(make()), answers, **rest)


def _regex(name: str, make: Callable[[], str], answers: frozenset[int] = SERVED_OR_REFUSED, **rest: Any) -> Attack:
    return posting(name, lambda: asking(guided_regex=make()), answers, **rest)


def _lark(name: str, make: Callable[[], str], answers: frozenset[int] = SERVED_OR_REFUSED, **rest: Any) -> Attack:
    return posting(name, lambda: asking(guided_grammar=make()), answers, **rest)


def _rules(count: int) -> str:
    return "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(count)) + f'r{count}: "x"\n'


async def _many_grammars(target: Target) -> list[int]:
    """None is in the cache."""
    return await target.posts(CHAT, [formatted(of(**{f"field_{i}_{j}": {"type": "integer"} for j in range(20)})) for i in range(40)])


async def _many_runaways(target: Target) -> list[int]:
    """Each takes its worker's whole time; a simple one must come through beside them."""
    hard = [asking(guided_regex=f"(a|b)*a(a|b){{{400 + i}}}c(.*d){{20}}") for i in range(6)]
    return await target.posts(CHAT, [*hard, formatted(of(n={"type": "integer"}))])


async def _hang_ups(target: Target) -> list[int]:
    for i in range(20):
        await target.hang_up(CHAT, formatted({"allOf": [{"anyOf": [of(**{f"a{i}{j}": {}}), of(b={})]} for j in range(14)]}), after_s=0.02)
    return [await target.post(CHAT, asking(guided_regex="[0-9]{3}"))]


GRAMMARS = (
    _schema("H7 schema of 3,000 definitions, each a $ref to the next", lambda: chained(3000), REFUSED, quick=True),
    _schema("H7 the same under `definitions`", lambda: chained(3000, "definitions"), REFUSED),
    _schema("H7 the same at the limit", lambda: chained(199)),
    posting("H7 the same as guided_json, a text", lambda: asking(guided_json=str(chained(3000)).replace("'", '"')), REFUSED),
    posting("H7 the same in a tool", lambda: asking(tools=[tool(chained(3000))], tool_choice="required"), REFUSED, quick=True),
    posting(
        "H7 the same in /v1/responses",
        lambda: {"model": "tiny-chat", "input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": chained(3000)}}},
        REFUSED,
        path=RESPONSES,
    ),
    _lark("H7 Lark grammar of 3,500 rules, each the next", lambda: _rules(3500), REFUSED, quick=True),
    _lark("H7 the same at the limit", lambda: _rules(199)),
    _lark(
        "grammars: 1,900 rules in a tree",
        lambda: (
            "start: r0\n"
            + "".join(f"r{i}: r{2 * i + 1} r{2 * i + 2}\n" for i in range(900))
            + "".join(f'r{i}: "x"\n' for i in range(900, 1802))
        ),
    ),
    _schema(
        "H8 no finite value fits", lambda: {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}, REFUSED, quick=True
    ),
    _schema("H8 no value at all fits", lambda: False, REFUSED),
    _schema(
        "H8 two definitions that are each other",
        lambda: {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        REFUSED,
    ),
    _schema("H8 an array that must hold itself", lambda: {"type": "array", "items": {"$ref": "#"}, "minItems": 1}, REFUSED),
    _regex("H8 (a{1000}){1000}", lambda: "(a{1000}){1000}", REFUSED, quick=True),
    _regex("H8 repetitions in five levels", lambda: "(((((a{40}){40}){40}){40}){40})", REFUSED),
    _lark("H8 a rule that is itself", lambda: "start: start", REFUSED),
    _lark("H8 two rules that are each other", lambda: "start: a\na: b\nb: a", REFUSED),
    _lark("H8 a terminal that is itself", lambda: "start: A\nA: A", REFUSED),
    _regex("regex: optional 5,000 times", lambda: "(a?){5000}a{5000}"),
    _regex("regex: the classic exponential automaton", lambda: "(a|b)*a(a|b){300}"),
    _regex("regex: thirty overlapping wildcards", lambda: "(.*a){30}.*"),
    _regex("regex: nested stars", lambda: "((((((((a*)*)*)*)*)*)*)*)*b"),
    _regex("regex: any character 10,000 times", lambda: r"[\x{0}-\x{10FFFF}]{10000}"),
    _regex("regex: 16,000 parentheses", lambda: "(" * 16000 + "a" + ")" * 16000),
    _regex("regex: 16,000 open parentheses", lambda: "(" * 16000, REFUSED),
    _regex("regex: 1 MB of alternatives", lambda: "|".join(f"w{i}" for i in range(150_000)), REFUSED),
    _regex("regex: 5,000 alternatives", lambda: "|".join(f"w{i}" for i in range(5000))),
    _regex("regex: looks ahead and back", lambda: r"(?=a)(?<!b)(a)\1", REFUSED),
    _regex("regex: Unicode classes by the hundred", lambda: r"(\p{L}|\p{N}|\p{S}){100}" * 20),
    _regex("regex: a count beyond 64 bits", lambda: "a{99999999999999999999}", REFUSED),
    posting("choices: one too many", lambda: asking(guided_choice=[f"choice {i}" for i in range(8193)]), REFUSED),
    posting("choices: 8,192 of 100 characters", lambda: asking(guided_choice=[f"{i:0100}" for i in range(8192)]), quick=True),
    posting("choices: one of 1 MB", lambda: asking(guided_choice=["x" * 1_000_000])),
    posting("choices: 8,192 beginnings of one text", lambda: asking(guided_choice=["ab" * i for i in range(1, 600)])),
    posting("choices: the empty text, special tokens", lambda: asking(guided_choice=["", "<|im_end|>", "\x00", "\ufffe"])),
    _schema("schema: enum of 100,000 texts", lambda: {"enum": [f"value {i}" for i in range(100_000)]}),
    _schema("schema: const of 900 kB", lambda: {"const": "x" * 900_000}),
    _schema(
        "schema: 2^20 combinations of allOf and anyOf",
        lambda: {"allOf": [{"anyOf": [of(**{f"a{i}": {}}), of(**{f"b{i}": {}})]} for i in range(20)]},
        quick=True,
    ),
    _schema("schema: 2^18 combinations of oneOf", lambda: {"allOf": [{"oneOf": [{"minimum": i}, {"maximum": i}]} for i in range(18)]}),
    _schema("schema: anyOf of 10,000", lambda: {"anyOf": [of(**{f"k{i}": {"type": "integer"}}) for i in range(5000)]}),
    _schema("schema: allOf in 90 levels", lambda: nested(45, {"allOf": [{"type": "string"}]})),
    _schema("schema: 100,000 levels", lambda: {"type": "array"}, SERVED_OR_REFUSED),
    posting("schema: 20,000 levels, as text", lambda: asking(guided_json='{"items":' * 20_000 + "{}" + "}" * 20_000), REFUSED),
    posting(
        "schema: 20,000 levels, as a body",
        lambda: b'{"model":"tiny-chat","messages":[],"guided_json":' + b'{"items":' * 20_000 + b"{}" + b"}" * 20_001,
        REFUSED,
    ),
    _schema(
        "schema: 1,000 optional properties", lambda: {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(1000)}}
    ),
    _schema("schema: 20,000 properties", lambda: of(**{f"p{i}": {} for i in range(20_000)}), REFUSED),
    _schema(
        "schema: 30 objects of 30 properties in two levels",
        lambda: of(**{f"a{i}": of(**{f"b{j}": of(c={"type": "number"}) for j in range(30)}) for i in range(30)}),
    ),
    _schema(
        "schema: minItems and maxItems of a million",
        lambda: {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000, "maxItems": 2_000_000},
    ),
    _schema(
        "schema: an array of arrays, each 1,000 long",
        lambda: {
            "type": "array",
            "minItems": 1000,
            "items": {"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000, "items": {"type": "null"}}},
        },
    ),
    _schema("schema: minLength of a billion", lambda: {"type": "string", "minLength": 10**9}),
    _schema("schema: maxLength of ten million", lambda: {"type": "string", "maxLength": 10**7}),
    _schema("schema: bounds of 400 digits", lambda: {"type": "integer", "minimum": 10**15, "maximum": 10**18}),
    _schema("schema: multipleOf near zero", lambda: {"type": "number", "multipleOf": 1e-300, "minimum": -1e308, "maximum": 1e308}),
    _schema("schema: multipleOf zero and below", lambda: {"type": "integer", "multipleOf": 0}),
    _schema("schema: a pattern that repeats itself", lambda: {"type": "string", "pattern": "^(a{1000}){1000}$"}, REFUSED),
    _schema(
        "schema: 200 patterns of keys that overlap",
        lambda: {"type": "object", "patternProperties": {f"^(a|b)*{i}.*$": {"type": "integer"} for i in range(200)}},
    ),
    _schema("schema: $ref to another machine", lambda: {"$ref": "http://127.0.0.1:1/schema.json"}, REFUSED),
    _schema(
        "schema: $refs that lead nowhere", lambda: {"anyOf": [{"$ref": "#/$defs/%ff~9"}, {"$ref": "#//"}, {"$ref": ""}, {"$ref": "#x"}]}
    ),
    _schema(
        "schema: fields of the wrong type",
        lambda: {"type": 7, "properties": [], "required": "a", "enum": {}, "minItems": "x", "$defs": 3},
        REFUSED,
    ),
    _schema(
        "schema: not, if, dependentSchemas",
        lambda: {"type": "object", "not": {"type": "string"}, "if": {}, "then": {}, "dependentSchemas": {"a": {}}},
    ),
    _schema("schema: keys of control characters", lambda: of(**{"\x00\x1f": {}, '"': {}, "\\": {}, "\u2028": {}, "": {}})),
    _schema("schema: a key of 500 kB", lambda: of(**{"k" * 500_000: {"type": "null"}})),
    _schema(
        "schema: trees of themselves, eight ways",
        lambda: {
            "$ref": "#/$defs/t",
            "$defs": {
                "t": {"type": "object", "properties": {f"c{i}": {"$ref": "#/$defs/t"} for i in range(8)}, "additionalProperties": False}
            },
        },
    ),
    _schema(
        "schema: 1,900 definitions that use each other",
        lambda: {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{i}": {"type": "object", "properties": {f"p{j}": {"$ref": f"#/$defs/d{(i * 7 + j) % 1900}"} for j in range(5)}}
                for i in range(1900)
            },
        },
    ),
    _lark("Lark: ambiguous, 100 tokens long", lambda: 'start: start start | "a" | "aa" | "aaa"'),
    posting(
        "Lark: ambiguous and long to follow",
        lambda: asking(guided_grammar='start: s\ns: s s s | s s | "a" | ""', max_tokens=400),
        limit_s=120,
    ),
    _lark("Lark: nothing, repeated", lambda: 'start: a*\na: b*\nb: c*\nc: ""'),
    _lark("Lark: 30,000 alternatives", lambda: "start: " + " | ".join(f'"w{i}"' for i in range(30_000))),
    _lark("Lark: a rule of 100,000 parts", lambda: "start: " + '"a" ' * 100_000),
    _lark("Lark: 20,000 parentheses", lambda: "start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
    _lark("Lark: repeated a hundred thousand times", lambda: 'start: ("a" | "b" "c"){1,100000}'),
    _lark("Lark: a schema of 3,000 $refs within", lambda: "start: %json " + str(chained(3000)).replace("'", '"'), REFUSED),
    _lark("Lark: a terminal with a hard expression", lambda: "start: A\nA: /((a|b)*a(a|b){400})+/ | /(.*x){40}/"),
    _lark("Lark: imports and directives", lambda: '%import common.INT\n%import /etc/passwd\n%ignore /.*/\nstart: INT "a"'),
    _lark("Lark: a text without end", lambda: 'start: "' + "a" * 500_000, REFUSED),
    _lark("Lark: NUL, surrogates, all of Unicode", lambda: 'start: "\x00" | /[\\u0000-\\U0010FFFF]*/ | "\\ud800"'),
    posting(
        "tools: 128 schemas of 8 kB",
        lambda: asking(
            tools=[tool(of(**{f"p{i}_{j}": {"type": "string"} for j in range(200)}), f"t{i}") for i in range(128)], tool_choice="required"
        ),
    ),
    posting(
        "tools: 128 of 20,000 definitions in all",
        lambda: asking(tools=[tool(chained(150), f"t{i}") for i in range(128)], tool_choice="required"),
    ),
    posting("tools: 5,000", lambda: asking(tools=[tool({}, f"t{i}") for i in range(5000)]), REFUSED),
    posting("tools: names of 1 MB", lambda: asking(tools=[tool({}, "n" * 1_000_000)]), REFUSED),
    posting("tools: 128 of one name", lambda: asking(tools=[tool({}, "same")] * 128)),
    posting("tools: nothing fits, of a mock", lambda: asking(model="mock", tools=[tool(chained(150))], tool_choice="required")),
    posting(
        "mock: a schema of eight trees",
        lambda: asking(
            model="mock",
            guided_json={"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000, "items": {"type": "string"}}},
        ),
    ),
    posting(
        "mock: a schema whose fields are of the wrong type",
        lambda: chat(guided_json={"type": "string", "minLength": "x", "maxLength": -1}),
        quick=True,
    ),
    posting("mock: bounds of the wrong type", lambda: chat(guided_json={"type": "integer", "minimum": "a", "exclusiveMinimum": []})),
    posting("mock: items and properties of the wrong type", lambda: chat(guided_json={"type": "object", "properties": [1], "enum": 3})),
    posting("mock: an array of fractions", lambda: chat(guided_json={"type": "array", "minItems": 1.5, "items": [], "prefixItems": 3})),
    posting("mock: a tool of the wrong type", lambda: chat(tools=[tool({"type": "object", "properties": 7})], tool_choice="required")),
    posting("mock: a schema of 90 levels", lambda: chat(guided_json=nested(45, {"type": "string"}))),
    Attack("grammars: forty at a time that nobody knows yet", _many_grammars, OK | {429}),
    Attack("grammars: six runaways at a time, and a simple one", _many_runaways, SERVED_OR_REFUSED, limit_s=120),
    Attack("grammars: twenty clients that hang up while theirs compile", _hang_ups, OK, limit_s=120),
)
