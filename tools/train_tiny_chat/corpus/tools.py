"""Calling tools in the template's format with values taken from the question, and answering from what they return."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mm_gateway.core import Message, Tool, ToolCall
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.asking import exchange, system_message
from tools.train_tiny_chat.corpus.conversation import Conversation, Example
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.events import event
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.json_answers import asked_for, invention
from tools.train_tiny_chat.corpus.small_talk import SMALL_TALK


class Parameter(NamedTuple):
    """schema: of its value. value: draws one."""

    name: str
    schema: dict[str, Any]
    value: Callable[[Draw], Any]


class Known(NamedTuple):
    """A usual tool. {name} in asks and answers is a parameter's or a result's value; the last of asks is held out."""

    name: str
    description: str
    parameters: Sequence[Parameter]
    asks: Sequence[str]
    result: Callable[[Draw, dict[str, Any]], dict[str, Any]]
    answer: str
    names: Sequence[str] = ()


_TEXT = {"type": "string"}
_WHOLE = {"type": "integer"}
_NUMBER = {"type": "number"}


def _city(draw: Draw) -> str:
    if draw.chance(0.1):
        return f"{draw.one(words.CITIES)}, {draw.one(['CA', 'UK', 'Texas', 'France', words.made_up(draw)])}"
    return draw.one(words.CITIES) if draw.chance(0.3) else words.made_up_zh(draw) if draw.chance(0.1) else words.made_up(draw)


def _phrase(draw: Draw) -> str:
    return " ".join(draw.one(words.ADJECTIVES + words.THINGS + words.NOUNS) for _ in range(draw.number(1, 4)))


_CURRENCY = ["EUR", "USD", "GBP", "CNY", "JPY", "CHF", "INR"]

# fmt: off
KNOWN: list[Known] = [
    Known(
        "get_weather", "The weather of a city now.", [Parameter("city", _TEXT, _city)],
        ["(What is|How is|What's) the weather (like |)in {city}( today| now|)?", "weather in {city}", "(Tell me|Look up) the weather in {city}.", "Is it (cold|warm|raining|sunny) in {city}?", "{city}的天气(怎么样|如何)？", "How warm is it in {city}?", "What should I wear in {city} today?"],
        lambda d, a: {"temperature": d.number(-15, 40), "condition": d.one(["sunny", "cloudy", "rain", "snow", "windy", "fog"])}, "It is {temperature} degrees in {city}: {condition}.", ["get_weather", "weather", "current_weather", "get_current_weather", "lookup_weather"],
    ),
    Known("get_time", "The local time of a city.", [Parameter("city", _TEXT, _city)], ["What time is it in {city}?", "(Tell me|What is) the (local |)time in {city}(?|.)", "time in {city}", "{city}现在几点？", "How late is it in {city}?"], lambda d, a: {"time": f"{d.number(0, 23):02d}:{d.number(0, 59):02d}"}, "It is {time} in {city}.", ["get_time", "local_time", "clock", "current_time"]),
    Known("add", "Adds two numbers.", [Parameter("a", _WHOLE, lambda d: d.number(0, 9999)), Parameter("b", _WHOLE, lambda d: d.number(0, 9999))], ["(Add|Sum) {a} and {b}.", "What is {a} + {b}?", "{a} plus {b}?", "(Use the tool to add|Please add) {a} and {b}.", "Calculate the sum of {a} and {b}."], lambda d, a: {"result": a["a"] + a["b"]}, "The result is {result}.", ["add", "sum", "plus", "add_numbers"]),
    Known("multiply", "Multiplies two numbers.", [Parameter("a", _WHOLE, lambda d: d.number(0, 999)), Parameter("b", _WHOLE, lambda d: d.number(0, 999))], ["Multiply {a} (by|and|with) {b}.", "What is {a} (times|*|x) {b}?", "{a} times {b}?", "Calculate the product of {a} and {b}."], lambda d, a: {"result": a["a"] * a["b"]}, "The result is {result}.", ["multiply", "times", "product"]),
    Known("calculate", "Evaluates an arithmetic expression.", [Parameter("expression", _TEXT, lambda d: f"{d.number(1, 999)} {d.one('+-*/')} {d.number(1, 999)}")], ["(Calculate|Compute|Evaluate) {expression}(.|)", "(What is|How much is) {expression}?", "{expression} = ?", "Please work out {expression}."], lambda d, a: {"result": d.number(1, 9999)}, "The result is {result}.", ["calculate", "calculator", "evaluate", "calc"]),
    Known("search", "Searches for documents.", [Parameter("query", _TEXT, _phrase)], ["(Search|Look|Search the web) for {query}.", "(Find|Find me|Look up) (documents about |something about |){query}.", "search {query}", "搜索{query}。", "What can be found about {query}?"], lambda d, a: {"title": words.made_up(d), "count": d.number(1, 90)}, "I found {count} documents; the first is {title}.", ["search", "web_search", "search_documents", "lookup"]),
    Known("send_email", "Sends an email.", [Parameter("to", _TEXT, lambda d: f"{words.made_up(d).split()[0].lower()}@{words.syllables(d, 2)}.com"), Parameter("subject", _TEXT, _phrase)], ["Send an email to {to} (about|with the subject) {subject}.", "(Write|Mail) to {to} about {subject}.", "email {to}: {subject}", "Let {to} know of {subject} by mail."], lambda d, a: {"status": "sent"}, "The email to {to} was sent.", ["send_email", "mail", "email", "send_mail"]),
    Known("convert_currency", "Converts an amount of money.", [Parameter("amount", _NUMBER, lambda d: d.number(1, 9999)), Parameter("source", {"type": "string", "enum": _CURRENCY}, lambda d: d.one(_CURRENCY)), Parameter("target", {"type": "string", "enum": _CURRENCY}, lambda d: d.one(_CURRENCY))], ["(Convert|Change) {amount} {source} (to|into) {target}.", "How (much|many {target}) (is|are) {amount} {source} in {target}?", "{amount} {source} in {target}", "What do I get in {target} for {amount} {source}?"], lambda d, a: {"amount": d.number(1, 9999)}, "That is {amount} {target}.", ["convert_currency", "exchange", "currency"]),
    Known("set_timer", "Sets a timer.", [Parameter("minutes", _WHOLE, lambda d: d.number(1, 180))], ["(Set|Start) a timer (for|of) {minutes} minutes.", "Wake me in {minutes} minutes.", "timer {minutes} minutes", "(Remind|Call) me in {minutes} minutes.", "I need an alarm after {minutes} minutes."], lambda d, a: {"ok": True}, "The timer is set for {minutes} minutes.", ["set_timer", "timer", "start_timer"]),
    Known("get_user", "Looks up a user by number.", [Parameter("user_id", _WHOLE, lambda d: d.number(1, 99999))], ["(Who is|Show|Look up|Get) (the |)user (number |){user_id}(?|.)", "user {user_id}", "(Give me|Find) the user with the (id|number) {user_id}.", "What do we know of user {user_id}?"], lambda d, a: {"name": words.person(d), "city": _city(d)}, "User {user_id} is {name} from {city}.", ["get_user", "find_user", "user_info"]),
    Known("translate", "Translates a text.", [Parameter("text", _TEXT, _phrase), Parameter("language", _TEXT, lambda d: d.one(["French", "German", "Spanish", "Chinese", "Italian", "Latin"]))], ["Translate \"{text}\" (into|to) {language}.", "(How do you say|What is) \"{text}\" in {language}?", "\"{text}\" in {language}, please.", "Put \"{text}\" into {language}."], lambda d, a: {"text": " ".join(words.syllables(d, 2) for _ in range(2))}, "In {language}: {text}.", ["translate", "translator", "translate_text"]),
    Known("turn_on", "Switches a device on or off.", [Parameter("device", _TEXT, lambda d: d.one(words.THINGS)), Parameter("on", {"type": "boolean"}, lambda d: d.chance(0.5))], ["Turn the {device} {on}.", "Switch {on} the {device}.", "{device} {on}", "Please put the {device} {on}."], lambda d, a: {"ok": True}, "Done: the {device} is {on}.", ["turn_on", "switch", "set_device"]),
]
# fmt: on

_KINDS = ["function", "tool", "lookup", "service", "customer", "name", "helper"]
_VERBS = "get find read list count check load open book order create delete update play show".split()
_FIELDS = [
    "name",
    "input",
    "value",
    "location",
    "query",
    "text",
    "id",
    "code",
    "city",
    "title",
    "count",
    "size",
    "colour",
    "price",
    "day",
    "level",
    "owner",
    "key",
    "limit",
]


def _field(draw: Draw) -> Parameter:
    name = draw.one(_FIELDS)
    if draw.chance(0.25):
        name = f"{draw.one([words.syllables(draw, 1), draw.one(words.THINGS + _KINDS)])}_{name}"
    base = name.rsplit("_", 1)[-1]
    if base in ("count", "size", "limit", "level", "id") or (base in ("input", "value") and draw.chance(0.6)):
        return Parameter(name, _WHOLE, lambda d: d.number(0, d.one([9, 9, 99, 9999])))
    if base == "price":
        return Parameter(name, _NUMBER, lambda d: d.number(1, 999) + d.one([0, 0.5, 0.25]))
    if base == "colour":
        return Parameter(name, {"type": "string", "enum": words.COLOURS[:5]}, lambda d: d.one(words.COLOURS[:5]))
    if base == "day":
        return Parameter(name, _TEXT, lambda d: d.one(words.DAYS))
    return Parameter(name, _TEXT, lambda d: draw.one([words.made_up, words.code, _phrase, _foreign, _foreign])(d))


def _foreign(draw: Draw) -> str:
    """A name in other letters, which are several tokens each."""
    if draw.chance(0.5):
        return words.made_up_zh(draw) + draw.one(["集团", "公司", "", draw.one(words.ZH_NOUNS)])
    first, last = draw.one([(0x3041, 0x3093), (0x30A1, 0x30F3), (0x4E00, 0x9FA5), (0x0430, 0x044F), (0x03B1, 0x03C9)])
    return "".join(chr(draw.number(first, last)) for _ in range(draw.number(2, 6)))


def random_tool(draw: Draw) -> Known:
    """A tool of a made-up kind, asked for by its fields."""
    thing = draw.one([*words.THINGS, *words.NOUNS, words.syllables(draw, 2)])
    verb = draw.one(_VERBS)
    fields = list({field.name: field for field in (_field(draw) for _ in range(draw.one([1, 1, 2, 2, 3])))}.values())
    quote = draw.one(["", "", "", "'", '"'])
    said = draw.one([" and ", ", ", " "]).join(
        f"{field.name.replace('_', draw.one([' ', '_']))} {quote}{{{field.name}}}{quote}" for field in fields
    )
    name = draw.one([f"{verb}_{thing}", f"{thing}_{verb}", f"{verb}{thing.capitalize()}", f"{thing}_{draw.one(_KINDS)}"])
    passed = ", ".join(f"{quote}{{{field.name}}}{quote}" for field in fields)
    listed = said.split(" ", 1)[1] if len(fields) == 1 else said
    about = f"{draw.one(words.ADJECTIVES)} {draw.one(words.NOUNS)}"
    remark = draw.one(["", f" - a {about}", f" ({about})", f" ({about}) - a {thing}"])
    asks = [
        f"(What is the value of|Call|Run|Give me the result of) {name}({passed})(?|.)( Use the tool.|)",
        f"{verb.capitalize()} a {thing} (named|called|with the {fields[0].name.replace('_', ' ')}) {listed}{remark}.",
        f"(Please |){verb} the {thing} with {said}.",
        f"{verb.capitalize()} (a|the) {thing}: {said}",
        f"(Can|Could) you {verb} the {thing} (with|for) {said}?",
        f"I (want|need) to {verb} a {thing} with {said}.",
        f"{verb} {thing} {said}",
        f"Would you {verb} a {thing}, {said}?",
    ]
    key = draw.one(["status", "result", "total", "place", "owner"])
    return Known(
        name,
        draw.one(["", f"{verb.capitalize()}s a {thing}."]),
        fields,
        asks,
        lambda d, a: {key: words.amount(d) if d.chance(0.5) else words.made_up(d)},
        f"The {key} is {{{key}}}.",
    )


def declared(draw: Draw, known: Known) -> Tool:
    name = draw.one(known.names) if known.names else known.name
    required = [parameter.name for parameter in known.parameters]
    schema: dict[str, Any] = {"type": "object", "properties": {parameter.name: parameter.schema for parameter in known.parameters}}
    if draw.chance(0.7):
        schema["required"] = required
    if draw.chance(0.25):
        schema["additionalProperties"] = False
    return Tool(name, known.description if draw.chance(0.85) else "", schema)


def _made_up(draw: Draw) -> Conversation:
    """A tool whose arguments are to be invented: a joke, a riddle, a story."""
    animal = draw.one(words.ANIMALS)
    kind, values = invention(draw, animal)
    word = kind.split()[-1]
    name = draw.one([word.capitalize(), f"make_{word}", f"{word}_writer"])
    fields = {field: {"type": "string", **({"description": f"the {field} of {kind}"} if draw.chance(0.5) else {})} for field in values}
    tool = Tool(
        name, draw.one(["", f"{word.capitalize()} to tell user."]), {"type": "object", "properties": fields, "required": list(fields)}
    )
    call = ToolCall("call_0", name, json.dumps(values, ensure_ascii=False))
    turns = (
        Message(role="user", content=asked_for(draw, kind, animal)),
        Message(role="assistant", content="", tool_calls=(call,)),
    )
    return Conversation("tools", turns, (tool,))


class ToolTask(NamedTuple):
    conversation: Conversation
    call: tuple[str, dict[str, Any]] | None


def task(draw: Draw, *, answered: bool | None = None) -> ToolTask:
    """Tools are offered and one is called; or the question needs none."""
    offered: list[tuple[Known, Tool]] = []
    for _ in range(draw.one([1, 1, 2, 2, 3, 4])):
        known = draw.one(KNOWN) if draw.chance(0.4) else random_tool(draw)
        if all(known.description != other.description or known.name != other.name for other, _ in offered):
            offered.append((known, declared(draw, known)))
    tools = tuple(tool for _, tool in offered)
    system = system_message(draw)
    before = [Message(role="system", content=system)] if system else []
    if draw.chance(0.12) and answered is None:
        question, answer = exchange(draw, SMALL_TALK + GATEWAY_FACTS)[:2]
        return ToolTask(
            Conversation("tools", (*before, Message(role="user", content=question), Message(role="assistant", content=answer)), tools), None
        )
    known, tool = draw.one(offered)
    arguments = {parameter.name: parameter.value(draw) for parameter in known.parameters}
    question = _filled(draw.question(known.asks), arguments)
    question = question[0].upper() + question[1:] if draw.chance(0.8) else question
    if draw.chance(0.1):
        question += draw.one([" Use the tool.", " Use a tool.", " Call the function.", " Please use your tools."])
    call = ToolCall("call_0", tool.name, json.dumps(arguments, ensure_ascii=False))
    turns = [*before, Message(role="user", content=question), Message(role="assistant", content="", tool_calls=(call,))]
    if draw.chance(0.6) if answered is None else answered:
        if draw.chance(0.25):  # a tool may answer in words, which are the answer then
            sentence = f"{draw.one([event(draw, 'en').text, _weather(draw)])}."
            turns += [Message(role="tool", content=sentence, tool_call_id="call_0"), Message(role="assistant", content=sentence)]
            return ToolTask(Conversation("tools", tuple(turns), tools), (tool.name, arguments))
        result = known.result(draw, arguments)
        text = json.dumps(result, ensure_ascii=False) if draw.chance(0.8) else json.dumps(result, ensure_ascii=False, separators=(",", ":"))
        turns += [
            Message(role="tool", content=text, tool_call_id="call_0"),
            Message(role="assistant", content=_filled(known.answer, {**arguments, **result})),
        ]
    return ToolTask(Conversation("tools", tuple(turns), tools), (tool.name, arguments))


def _weather(draw: Draw) -> str:
    return draw.one(
        [
            f"It's {draw.one(['sunny', 'cold', 'raining', 'windy', 'warm'])}",
            f"{draw.number(-9, 38)} degrees and {draw.one(['clear', 'fog', 'snow'])}",
        ]
    )


def _filled(pattern: str, values: dict[str, Any]) -> str:
    for name, value in values.items():
        written = ("on" if value else "off") if isinstance(value, bool) else str(value)
        pattern = pattern.replace(f"{{{name}}}", written)
    return pattern


def sample(draw: Draw) -> Example:
    return _made_up(draw) if draw.chance(0.1) else task(draw).conversation
