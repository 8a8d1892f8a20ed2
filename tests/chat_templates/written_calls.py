"""How each tool format writes calls, word by word; and what a reader finds in them."""

from __future__ import annotations

from mm_gateway.chat_templates.reasoning_formats.formats import REASONING_FORMATS
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.chat_templates.tool_formats.parsed import Parsed, ParsedArguments, ParsedCall, ParsedText, ToolParser
from mm_gateway.core import Tool

WEATHER = Tool(
    "get_weather",
    "Weather of a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)
CLOCK = Tool("clock")
ARGUMENTS = '{"city": "Bad \\"Ems\\" {x}]", "days": 3}'
_CITY = 'Bad "Ems" {x}]'
_QUOTED = '"Bad \\"Ems\\" {x}]"'

CALL = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>',
    "react": f"Thought: I need it.\nAction: get_weather\nAction Input: {ARGUMENTS}",
    "llama": f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}',
    "plain": f"CALL get_weather {ARGUMENTS}",
    "qwen3-xml": (
        f"<tool_call>\n<function=get_weather>\n<parameter=city>\n{_CITY}\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>"
    ),
    "seed-xml": (
        f"<seed:tool_call>\n<function=get_weather>\n<parameter=city>{_CITY}</parameter>\n<parameter=days>3</parameter>\n"
        "</function>\n</seed:tool_call>"
    ),
    "glm": (
        f"<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>{_CITY}</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
    ),
    "minimax": (
        f'<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">{_CITY}</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>'
    ),
    "deepseek-v3": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>"
    ),
    "deepseek-v3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "kimi": (
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|>"
        "<|tool_calls_section_end|>"
    ),
    "mistral": f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}",
    "mistral-call-id": f"[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{ARGUMENTS}",
    "mistral-list": f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ARGUMENTS}}}]',
    "phi4": f'<|tool_call|>[{{"name": "get_weather", "arguments": {ARGUMENTS}}}]<|/tool_call|>',
    "granite": f'<|tool_call|>[{{"name": "get_weather", "arguments": {ARGUMENTS}}}]',
    "cohere": (f'<|START_ACTION|>[\n    {{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {ARGUMENTS}}}\n]<|END_ACTION|>'),
    "hunyuan": f"<tool_calls>\n<tool_call>get_weather\n```json\n{ARGUMENTS}\n```</tool_call>\n</tool_calls>",
    "harmony": f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
    "python": f"[get_weather(city={_QUOTED}, days=3)]",
    "lfm2": f"<|tool_call_start|>[get_weather(city={_QUOTED}, days=3)]<|tool_call_end|>",
}
SECOND = {
    "hermes": '\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
    "llama": '; {"name": "clock", "parameters": {}}',
    "plain": "\nCALL clock {}",
    "qwen3-xml": "\n<tool_call>\n<function=clock>\n</function>\n</tool_call>",
    "seed-xml": "\n<seed:tool_call>\n<function=clock>\n</function>\n</seed:tool_call>",
    "glm": "\n<tool_call>clock\n</tool_call>",
    "minimax": '<invoke name="clock">\n</invoke>\n',
    "deepseek-v3": "\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n```json\n{}\n```<｜tool▁call▁end｜>",
    "deepseek-v3.1": "<｜tool▁call▁begin｜>clock<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    "kimi": "<|tool_call_begin|>functions.clock:1<|tool_call_argument_begin|>{}<|tool_call_end|>",
    "mistral": "[TOOL_CALLS]clock[ARGS]{}",
    "mistral-call-id": "[TOOL_CALLS]clock[CALL_ID]zzzzzzzz9[ARGS]{}",
    "mistral-list": ', {"name": "clock", "arguments": {}}',
    "phi4": ', {"name": "clock", "arguments": {}}',
    "granite": ', {"name": "clock", "arguments": {}}',
    "cohere": ',\n    {"tool_call_id": "1", "tool_name": "clock", "parameters": {}}',
    "hunyuan": "\n<tool_call>clock\n```json\n{}\n```</tool_call>",
    "python": ", clock()",
    "lfm2": ", clock()",
}
_END = {
    "minimax": "</minimax:tool_call>",
    "deepseek-v3": "<｜tool▁calls▁end｜>",
    "deepseek-v3.1": "<｜tool▁calls▁end｜>",
    "kimi": "<|tool_calls_section_end|>",
    "mistral-list": "]",
    "phi4": "]<|/tool_call|>",
    "granite": "]",
    "cohere": "\n]<|END_ACTION|>",
    "hunyuan": "\n</tool_calls>",
    "python": "]",
    "lfm2": "]<|tool_call_end|>",
}
"""What ends a section of calls."""
TAGGED = ("qwen3-xml", "seed-xml", "glm", "minimax")
PYTHONIC = ("python", "lfm2")


def two(name: str) -> str:
    """The call and the second one in one reply."""
    end = _END.get(name, "")
    return CALL[name].removesuffix(end) + SECOND[name] + end


def wrong(name: str) -> list[str]:
    """The call with another name, and with arguments that are not as their schema says."""
    number = {"days": '"days": "3"', "tagged": "three", "python": 'days="3"'}
    found = CALL[name].replace('"days": 3', number["days"]).replace("days=3", number["python"])
    found = found.replace(">3<", ">three<").replace("\n3\n", "\nthree\n")
    assert found != CALL[name]
    return [CALL[name].replace("get_weather", "get_money"), found]


def said(name: str, text: str) -> str:
    """An answer without calls, as a model of this format writes it."""
    return f"<|channel|>final<|message|>{text}" if name == "harmony" else text


class _BehindThoughts:
    """A ToolParser of a format in which thought and answer are messages, whose headers are read before."""

    def __init__(self, parser: ToolParser) -> None:
        self._parser = parser
        self._thoughts = REASONING_FORMATS["harmony"].new_reader("undecided")

    def feed(self, text: str) -> list[Parsed]:
        return [found for piece in self._thoughts.feed(text) if piece.part == "answer" for found in self._parser.feed(piece.text)]

    def end(self, **how: bool) -> list[Parsed]:
        rest = "".join(piece.text for piece in self._thoughts.end() if piece.part == "answer")
        return [*self._parser.feed(rest), *self._parser.end(**how)]


def reader(name: str, begun: str = "") -> ToolParser:
    if name == "harmony":
        return _BehindThoughts(TOOL_FORMATS[name].parser(begun, (WEATHER, CLOCK)))
    return TOOL_FORMATS[name].parser(begun, (WEATHER, CLOCK))


def read(parser: ToolParser, text: str, sizes: list[int] | None = None, **end: bool) -> tuple[str, list[tuple[str, str]]]:
    """The answer's text and its calls, where `text` comes in pieces of the given sizes (one character each by default)."""
    pieces: list[Parsed] = []
    position = 0
    for size in sizes or [1] * len(text):
        pieces += parser.feed(text[position : position + size])
        position += size
    pieces += parser.feed(text[position:])
    pieces += parser.end(**end)
    answer, calls = "", []
    for piece in pieces:
        match piece:
            case ParsedText(text):
                answer += text
            case ParsedCall(name):
                calls.append((name, ""))
            case ParsedArguments(text):
                calls[-1] = (calls[-1][0], calls[-1][1] + text)
    return answer, calls
