"""Structural tags, vLLM's and xgrammar's JSON for a text with structured parts, as a grammar of Lark.

Two forms: `{"structures": [{"begin", "schema", "end"}, …], "triggers": […]}`, free text in which each trigger begins one of the structures;
and `{"format": …}`, a tree of formats. Sources: https://docs.vllm.ai (structured outputs), https://xgrammar.mlc.ai (structural tag).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from mm_gateway.errors import InvalidRequestError
from mm_gateway.runtime.grammars.enforceable import as_enforced

_ANY = "/(?s:.*)/"
_MAX_DEPTH = 16
_SPACING = {"whitespace_flexible": False}
_TAG_FIELDS = ("begin", "content", "end")


def structural_tags_as_lark(text: str, param: str) -> str:
    """Raises:
    InvalidRequestError: it is no structural tag, or holds a format that is not served; names the place in it.
    """
    try:
        given: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{param} is no JSON: {str(error)[:200]}", param=param) from None
    if not isinstance(given, Mapping):
        raise InvalidRequestError(f"{param} must be an object", param=param)
    tag = cast(Mapping[str, Any], given)
    found = _Tags(param)
    if "structures" in tag:
        return found.lark(found.format(_of_structures(tag, param), "", 0, last=True))
    if "format" not in tag:
        raise InvalidRequestError(f"{param} must hold `format`, or `structures` and `triggers`", param=param)
    return found.lark(found.format(tag["format"], "format", 0, last=True))


class _Tags:
    """Collects rules. param: the field, to be named in errors, with the path in it."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._rules: list[str] = []

    def lark(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules])

    def format(self, given: object, at: str, depth: int, *, last: bool, end: str = "") -> str:
        """An expression of Lark for one format.

        Args:
            at: its path. last: nothing follows it. end: a text that follows it at once, which is then part of the expression.
        """
        if not isinstance(given, Mapping) or depth > _MAX_DEPTH:
            self._refuse(at, "must be an object with `type`" if depth <= _MAX_DEPTH else f"is nested deeper than {_MAX_DEPTH}")
        of = cast(Mapping[str, Any], given)
        after = f" {_quoted(end)}" if end else ""
        match of.get("type"):
            case "const_string":
                return _quoted(self._text(of, "value", at)) + after
            case "json_schema":
                return self._schema(of.get("json_schema", True), f"{at}.json_schema") + after
            case "regex":
                return self._named(f"/{_slashed(self._text(of, 'pattern', at))}/") + after
            case "any_text":
                return self._any_text(of, at, last=last, end=end)
            case "sequence":
                return self._sequence(self._list(of, "elements", at), f"{at}.elements", depth, last=last, end=end)
            case "or":
                elements = self._list(of, "elements", at)
                return self._named(
                    " | ".join(
                        self.format(element, f"{at}.elements[{index}]", depth + 1, last=last, end=end)
                        for index, element in enumerate(elements)
                    )
                )
            case "tag":
                return self._tag(of, at, depth) + after
            case "triggered_tags":
                if end:
                    self._refuse(at, "can only stand at the end, since its text has none")
                return self._triggered(of, at, depth)
            case "tags_with_separator":
                return self._separated(of, at, depth) + after
            case kind:
                served = "const_string, json_schema, regex, any_text, sequence, or, tag, triggered_tags and tags_with_separator"
                self._refuse(f"{at}.type", f"{json.dumps(kind)[:50]} is not served, only {served}")

    def _tag(self, of: Mapping[str, Any], at: str, depth: int, *, begun: str = "") -> str:
        """begun: of `begin`, that is written already."""
        begin, end = self._text(of, "begin", at, empty=True), self._text(of, "end", at, empty=True)
        content = self.format(of.get("content"), f"{at}.content", depth + 1, last=False, end=end)
        rest = begin.removeprefix(begun)
        return f"{_quoted(rest)} {content}" if rest else content

    def _any_text(self, of: Mapping[str, Any], at: str, *, last: bool, end: str) -> str:
        if of.get("excludes"):
            self._refuse(f"{at}.excludes", "is not served")
        if end:
            return self._named(_ANY, suffix=end)
        if not last:
            self._refuse(at, "must be followed by a text that ends it")
        return self._named(_ANY)

    def _sequence(self, elements: Sequence[object], at: str, depth: int, *, last: bool, end: str) -> str:
        pieces: list[str] = []
        index = 0
        while index < len(elements):
            element, following = elements[index], elements[index + 1] if index + 1 < len(elements) else None
            is_end = index == len(elements) - 1
            until = end if is_end else ""
            # A text that ends free text is one expression with it.
            joined = _kind(element) == "any_text" and _kind(following) == "const_string"
            if joined:
                until = self._text(cast(Mapping[str, Any], following), "value", f"{at}[{index + 1}]")
            pieces.append(self.format(element, f"{at}[{index}]", depth + 1, last=last and is_end, end=until))
            index += 2 if joined else 1
            if joined and index == len(elements) and end:
                pieces.append(_quoted(end))
        return " ".join(pieces)

    def _triggered(self, of: Mapping[str, Any], at: str, depth: int) -> str:
        triggers = [trigger for trigger in self._list(of, "triggers", at) if isinstance(trigger, str) and trigger]
        tags = self._list(of, "tags", at)
        if len(triggers) != len(self._list(of, "triggers", at)):
            self._refuse(f"{at}.triggers", "must be texts that are not empty")
        if of.get("excludes"):
            self._refuse(f"{at}.excludes", "is not served")
        free = f"{_ANY} & ~/(?s:.*)({'|'.join(_slashed(re.escape(trigger)) for trigger in triggers)})(?s:.*)/"
        alternatives: list[str] = []
        placed: set[int] = set()
        for trigger in triggers:
            rests: list[str] = []
            for index, tag in enumerate(tags):
                if index in placed or not isinstance(tag, Mapping):
                    continue
                if str(cast(Mapping[str, Any], tag).get("begin", "")).startswith(trigger):
                    placed.add(index)
                    rests.append(self._tag(cast(Mapping[str, Any], tag), f"{at}.tags[{index}]", depth, begun=trigger))
            if rests:
                alternatives.append(f"{self._named(free, suffix=trigger)} {self._named(' | '.join(rests))}")
        missing = next((index for index in range(len(tags)) if index not in placed), None)
        if missing is not None:
            self._refuse(f"{at}.tags[{missing}].begin", "begins with none of the triggers")
        one = self._named(" | ".join(alternatives))
        if of.get("stop_after_first"):
            return one if of.get("at_least_one") else self._named(f"{one} | {self._named(free)}")
        return f"{one} {one}* {self._named(free)}" if of.get("at_least_one") else f"{one}* {self._named(free)}"

    def _separated(self, of: Mapping[str, Any], at: str, depth: int) -> str:
        tags = self._list(of, "tags", at)
        for index, tag in enumerate(tags):
            if not isinstance(tag, Mapping):
                self._refuse(f"{at}.tags[{index}]", "must be an object")
        written = [self._tag(cast(Mapping[str, Any], tag), f"{at}.tags[{index}]", depth) for index, tag in enumerate(tags)]
        one = self._named(" | ".join(written))
        separator = self._text(of, "separator", at, empty=True)
        more = "" if of.get("stop_after_first") else f"({_quoted(separator)} {one})*" if separator else f"{one}*"
        return f"{one} {more}" if of.get("at_least_one") else f"({one} {more})?"

    def _schema(self, schema: object, at: str) -> str:
        enforced = as_enforced(schema, f"{self._param}.{at}")
        whole = {} if enforced is True else enforced
        if not isinstance(whole, Mapping):
            self._refuse(at, "is no JSON schema that a value fits")
        return self._named(f"%json {json.dumps({**whole, 'x-guidance': _SPACING})}")

    def _named(self, body: str, *, suffix: str = "") -> str:
        # What is joined by `&` has to be a terminal, whose name is upper case.
        name = f"part_{len(self._rules)}" if suffix or " & " not in body else f"PART_{len(self._rules)}"
        self._rules.append(f"{name}[suffix={_quoted(suffix)}]: {body}" if suffix else f"{name}: {body}")
        return name

    def _text(self, of: Mapping[str, Any], key: str, at: str, *, empty: bool = False) -> str:
        value: object = of.get(key, "")
        if not isinstance(value, str) or not (value or empty):
            self._refuse(f"{at}.{key}", "must be a text" if empty else "must be a text that is not empty")
        return value

    def _list(self, of: Mapping[str, Any], key: str, at: str) -> Sequence[object]:
        value: object = of.get(key)
        if not isinstance(value, list) or not value:
            self._refuse(f"{at}.{key}", "must be a list that is not empty")
        return cast(list[object], value)

    def _refuse(self, at: str, what: str) -> NoReturn:
        where = f"{self._param}.{at.lstrip('.')}" if at else self._param
        raise InvalidRequestError(f"{where} {what}", param=where)


def _of_structures(tag: Mapping[str, Any], param: str) -> dict[str, Any]:
    structures: object = tag["structures"]
    if not isinstance(structures, list) or not all(isinstance(one, Mapping) for one in cast(list[object], structures)):
        raise InvalidRequestError(f"{param}.structures must be a list of objects", param=f"{param}.structures")
    tags = [
        {
            "type": "tag",
            "begin": one.get("begin", ""),
            "content": {"type": "json_schema", "json_schema": one.get("schema", True)},
            "end": one.get("end", ""),
        }
        for one in cast(list[Mapping[str, Any]], structures)
    ]
    return {"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": tags}


def _kind(element: object) -> object:
    return cast(Mapping[str, Any], element).get("type") if isinstance(element, Mapping) else None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _slashed(regex: str) -> str:
    return re.sub(r"(?<!\\)/", r"\/", regex)
