"""The Jinja environment of chat templates: sandboxed, bounded, with what templates published for transformers expect.

A template comes with a checkpoint, so it is foreign code. What it may spend is counted in each rendering (`budget.py`), at every place
where it can grow a value or go on for long: loops, calls, filters, operators that grow texts, displays of lists, and output. Operators
are intercepted as Jinja's sandbox offers it; loops and `~`, for which it offers nothing, become filters in the syntax tree.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable, Sized
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox

from mm_gateway.chat_templates import budget
from mm_gateway.chat_templates.budget import Budget

_UNBOUNDED_FILTERS = ("pprint", "random", "urlize", "wordwrap", "xmlattr")
"""Of no use in a prompt, and not worth bounds of their own."""
_WRITING_FILTERS = frozenset({"e", "escape", "forceescape", "format", "indent", "join", "string", "tojson", "trim", "replace", "urlencode"})
_COPYING_FILTERS = frozenset({"dictsort", "groupby", "list", "reverse", "sort", "unique"})
_UNBOUNDED_METHODS = frozenset({"encode", "format_map", "maketrans", "to_bytes", "translate"})
_PERCENT_WIDTH = re.compile(r"%[^%a-zA-Z]*")
_NUMBER = re.compile(r"\d+")


OURS = frozenset(
    {"messages", "tools", "documents", "boundary", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize"}
)
"""Variables that a request's must not replace; the last three are arguments of transformers' own function."""


class ChatTemplate:
    """A compiled template; renders in any thread.

    Attributes:
        variables: names that it expects from whoever renders it. functions: names that it finds without.

    Raises:
        jinja2.TemplateSyntaxError: the source is no Jinja template.
    """

    def __init__(self, source: str) -> None:
        environment = _Environment()
        tree = environment.parse(source)
        self.functions = frozenset(environment.globals)
        self.variables = frozenset(jinja2.meta.find_undeclared_variables(tree)) - self.functions
        self._template = jinja2.Template.from_code(environment, environment.compile(_counted(tree)), environment.make_globals(None))

    def render(self, /, **variables: Any) -> str:
        """Raises jinja2.TemplateError: the template raises it, or needs more than a rendering may; and whatever else it raises."""
        with Budget():
            return "".join(self._template.generate(variables))


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols], finalize=budget.spend_all
        )
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.filters["tojson"] = _tojson
        self.filters = {name: _bounded_filter(name, function) for name, function in self.filters.items()}
        self.filters |= {"counted": budget.counted, "joined": _joined, "held": budget.spend_all}
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        match operator:
            case "*" if isinstance(left, int) and isinstance(right, int):
                budget.check_bits(left.bit_length() + right.bit_length())
            case "*":
                sequence, times = (left, right) if isinstance(right, int) else (right, left)
                if isinstance(times, int) and isinstance(sequence, Sized):
                    budget.spend(len(sequence) * max(times, 0))
            case "**" if isinstance(left, int) and isinstance(right, int):
                budget.check_bits(left.bit_length() * max(right, 0))
            case "%" if isinstance(left, str):
                _spend_percent(left, right)
            case "+" if isinstance(left, Sized) and isinstance(right, Sized):
                budget.spend(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: jinja2.runtime.Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        budget.tick()
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps `format`
        name, value = getattr(method, "__name__", ""), getattr(method, "__self__", None)
        if isinstance(value, (str, int)) and name in _UNBOUNDED_METHODS:
            raise jinja2.TemplateError(f"{name} is not available in chat templates")
        if isinstance(value, str):
            args = _spend_method(name, value, args, kwargs)
        elif isinstance(value, (list, tuple, dict)):
            budget.spend(len(value))
        return super().call(context, obj, *args, **kwargs)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; for rendering it is its contents."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _counted(tree: jinja2.nodes.Template) -> jinja2.nodes.Template:
    """The template with what it loops over, what it joins with `~`, and the lists and mappings that it writes out, as filters."""

    def through(name: str, value: jinja2.nodes.Node) -> jinja2.nodes.Filter:
        return jinja2.nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)  # type: ignore[arg-type]

    def changed(node: Any) -> Any:
        match node:
            case jinja2.nodes.Concat():
                return through("joined", jinja2.nodes.List(node.nodes, lineno=node.lineno))
            case jinja2.nodes.List() | jinja2.nodes.Dict():
                return through("held", node)
            case jinja2.nodes.Tuple() if node.ctx == "load":
                return through("held", node)
            case jinja2.nodes.For():
                node.iter = through("counted", node.iter)
        return node

    # Inner nodes first, each once: what replaces a node is not looked at again.
    order: list[jinja2.nodes.Node] = [tree]
    for node in order:
        order.extend(node.iter_child_nodes())
    for node in reversed(order):
        for field in node.fields:
            value = getattr(node, field)
            if isinstance(value, list):
                setattr(node, field, [changed(inner) for inner in value])
            elif isinstance(value, jinja2.nodes.Node):
                setattr(node, field, changed(value))
    tree.set_environment(tree.environment)  # type: ignore[arg-type] - that of the parser
    return tree


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # what Jinja passes itself

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget.tick()
        value = args[first] if len(args) > first else None
        if isinstance(value, str) or name in _WRITING_FILTERS:
            budget.spend_all(value)
        elif name in _COPYING_FILTERS and hasattr(value, "__len__"):
            budget.spend(len(value))  # type: ignore[arg-type]
        given = [*args[first + 1 :], *kwargs.values()]
        numbers = sum(number for number in given if isinstance(number, int))
        match name:
            case "center" | "batch" | "slice" | "tojson":
                budget.spend(numbers)
            case "indent":
                width = max((entry if isinstance(entry, int) else len(str(entry)) for entry in given), default=4)
                budget.spend((str(value).count("\n") + 1) * width)
            case "replace" if len(given) > 1:
                _spend_replace(str(value), str(given[0]), str(given[1]))
            case "join" if given and hasattr(value, "__len__"):
                budget.spend(len(value) * len(str(given[0])))  # type: ignore[arg-type]
            case "format":
                _spend_percent(str(value), tuple(given))
        return function(*args, **kwargs)

    return bounded


def _spend_method(name: str, value: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """For a method of a text; the arguments, which an iterator among them may have been used up for."""
    budget.spend(len(value))
    match name, args:
        case "center" | "ljust" | "rjust" | "zfill", (int(width), *_):
            budget.spend(width)
        case "expandtabs", _:
            budget.spend(value.count("\t") * sum(number for number in (*args, *kwargs.values(), 8) if isinstance(number, int)))
        case "replace", (str(old), str(new), *_):
            _spend_replace(value, old, new)
        case "join", (texts,):
            args = (list(texts),)
            budget.spend_all(args[0])
            budget.spend(len(args[0]) * len(value))
        case "format", _:
            if re.search(r"\{[^{}]*\{", value.replace("{{", "")):
                raise jinja2.TemplateError("widths within widths are not available in chat templates")
            given = (*args, *kwargs.values())
            budget.spend(sum(map(_number, _NUMBER.findall(value))))
            budget.spend(value.count("{") * max((len(entry) for entry in given if isinstance(entry, str)), default=0))
            budget.spend_all(given)
    return args


def _spend_replace(value: str, old: str, new: str) -> None:
    budget.spend(len(value) + (value.count(old) if old else len(value) + 1) * len(new))


def _spend_percent(form: str, values: Any) -> None:
    budget.spend_all(values)
    for spec in _PERCENT_WIDTH.findall(form):
        if "*" in spec:
            raise jinja2.TemplateError("widths from arguments are not available in chat templates")
        budget.spend(sum(map(_number, _NUMBER.findall(spec))))


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 12 else 10**12


def _joined(values: list[Any]) -> str:
    for value in values:
        budget.spend_all(value)
    return "".join(map(str, values))


def _strftime_now(form: str) -> str:
    if len(form) > 200 or re.search(r"%[^%a-zA-Z]*\d", form):
        raise jinja2.TemplateError("strftime_now takes up to 200 characters, and no widths")
    return datetime.datetime.now().strftime(form)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # Jinja's own escapes HTML, which is no concern of a prompt.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=None if indent is None else min(indent, 16))
