"""Chat templates in the manner of those that models with tools are published with, one a family, written anew and short."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """template: Jinja. form: the tool format that it teaches. marks: control tokens of its tokenizers that calls are written with."""

    template: str
    form: str
    marks: tuple[str, ...] = ()


def _template(call: str, *, before: str = "", between: str = "", after: str = "", no_content: bool = False, check: str = "") -> str:
    """call: how one is written, as Jinja over `call` (its function) and `id`. no_content: calls are those of messages without content."""
    has_calls = "message.tool_calls and message.content is none" if no_content else "message.tool_calls"
    return (
        "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
        f"{{%- if message.role == 'assistant' and {has_calls} %}}{{{{- message.content or '' }}}}{before}"
        "{%- for item in message.tool_calls %}{%- set call = item.function %}{%- set id = item.id %}"
        f"{check}{call}{{%- if not loop.last %}}{between}{{%- endif %}}{{%- endfor %}}{after}"
        "{%- else %}{{- message.content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )


def _text(literal: str) -> str:
    return "{{- '" + literal.replace("\n", "\\n").replace("'", "\\'") + "' }}"


_NAME, _JSON, _ID = "{{- call.name }}", "{{- call.arguments | tojson }}", "{{- id }}"
_NINE = "{%- if id | length != 9 %}{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}"
_JSON_CALL = _text('{"name": "') + _NAME + _text('", "arguments": ') + _JSON


_PYTHON = (
    "{%- for key, value in call.arguments | items %}{{- key + '=' + (value | tojson) }}"
    "{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}"
)


def _each(before: str, between: str, after: str) -> str:
    value = "{{- value if value is string else value | tojson }}"
    pieces = f"{_text(before)}{{{{- key }}}}{_text(between)}{value}{_text(after)}"
    return f"{{%- for key, value in call.arguments | items %}}{pieces}{{%- endfor %}}"


FAMILIES = {
    "Qwen 3": Family(_template(_text("<tool_call>\n") + _JSON_CALL + _text("}\n</tool_call>"), between=_text("\n")), "hermes"),
    "Hermes with control tokens": Family(
        _template(_text("<tool_call>\n") + _JSON_CALL + _text("}\n</tool_call>"), between=_text("\n")),
        "hermes",
        ("<tool_call>", "</tool_call>"),
    ),
    "Llama 3.1": Family(_template(_text('{"name": "') + _NAME + _text('", "parameters": ') + _JSON + _text("}")), "llama"),
    "Qwen 3 Coder": Family(
        _template(
            _text("<tool_call>\n<function=")
            + _NAME
            + _text(">\n")
            + _each("<parameter=", ">\n", "\n</parameter>\n")
            + _text("</function>\n</tool_call>"),
            between=_text("\n"),
        ),
        "qwen3-xml",
    ),
    "Seed-OSS": Family(
        _template(
            _text("<seed:tool_call>\n<function=")
            + _NAME
            + _text(">\n")
            + _each("<parameter=", ">", "</parameter>\n")
            + _text("</function>\n</seed:tool_call>"),
            between=_text("\n"),
        ),
        "seed-xml",
        ("<seed:tool_call>", "</seed:tool_call>"),
    ),
    "GLM 4.5": Family(
        _template(
            _text("<tool_call>")
            + _NAME
            + _text("\n")
            + _each("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n")
            + _text("</tool_call>"),
            between=_text("\n"),
        ),
        "glm",
        ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    "MiniMax M2": Family(
        _template(
            _text('<invoke name="') + _NAME + _text('">\n') + _each('<parameter name="', '">', "</parameter>\n") + _text("</invoke>\n"),
            before=_text("<minimax:tool_call>\n"),
            after=_text("</minimax:tool_call>"),
        ),
        "minimax",
        ("<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    "DeepSeek V3": Family(
        _template(
            _text("<｜tool▁call▁begin｜>function<｜tool▁sep｜>")
            + _NAME
            + "{{- '\\n```json\\n' + call.arguments + '\\n```<｜tool▁call▁end｜>' }}",
            before=_text("<｜tool▁calls▁begin｜>"),
            between=_text("\n"),
            after=_text("<｜tool▁calls▁end｜>"),
            no_content=True,
        ),
        "deepseek-v3",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),
    "DeepSeek V3.1": Family(
        _template(
            _text("<｜tool▁call▁begin｜>") + _NAME + _text("<｜tool▁sep｜>") + _JSON + _text("<｜tool▁call▁end｜>"),
            before=_text("<｜tool▁calls▁begin｜>"),
            after=_text("<｜tool▁calls▁end｜>"),
        ),
        "deepseek-v3.1",
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),
    "Kimi K2": Family(
        _template(
            _text("<|tool_call_begin|>") + _ID + _text("<|tool_call_argument_begin|>") + _JSON + _text("<|tool_call_end|>"),
            before=_text("<|tool_calls_section_begin|>"),
            after=_text("<|tool_calls_section_end|>"),
        ),
        "kimi",
        (
            "<|tool_calls_section_begin|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
            "<|tool_calls_section_end|>",
        ),
    ),
    "Mistral v13": Family(
        _template(_text("[TOOL_CALLS]") + _NAME + _text("[ARGS]") + _JSON, check=_NINE), "mistral", ("[TOOL_CALLS]", "[ARGS]")
    ),
    "Mistral v11": Family(
        _template(_text("[TOOL_CALLS]") + _NAME + _text("[CALL_ID]") + _ID + _text("[ARGS]") + _JSON, check=_NINE),
        "mistral-call-id",
        ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    ),
    "Mistral v3": Family(
        _template(
            _JSON_CALL + _text(', "id": "') + _ID + _text('"}'),
            before=_text("[TOOL_CALLS]["),
            between=_text(", "),
            after=_text("]"),
            check=_NINE,
        ),
        "mistral-list",
        ("[TOOL_CALLS]",),
    ),
    "Phi-4 mini": Family(
        _template(_JSON_CALL + _text("}"), before=_text("<|tool_call|>["), between=_text(", "), after=_text("]<|/tool_call|>")),
        "phi4",
        ("<|tool_call|>", "<|/tool_call|>"),
    ),
    "Granite 3": Family(
        _template(_JSON_CALL + _text("}"), before=_text("<|tool_call|>["), between=_text(", "), after=_text("]")),
        "granite",
        ("<|tool_call|>",),
    ),
    "Command R7B": Family(
        _template(
            _text('{"tool_call_id": "')
            + "{{- loop.index0 }}"
            + _text('", "tool_name": "')
            + _NAME
            + _text('", "parameters": ')
            + _JSON
            + _text("}"),
            before=_text("<|START_ACTION|>[\n    "),
            between=_text(",\n    "),
            after=_text("\n]<|END_ACTION|>"),
        ),
        "cohere",
        ("<|START_ACTION|>", "<|END_ACTION|>"),
    ),
    "Hunyuan A13B": Family(
        _template(
            _text("<tool_call>") + _NAME + _text("\n```json\n") + _JSON + _text("\n```</tool_call>"),
            before=_text("<tool_calls>\n"),
            between=_text("\n"),
            after=_text("\n</tool_calls>"),
        ),
        "hunyuan",
    ),
    "Llama 3.2 in Python": Family(
        _template(
            _NAME + _text("(") + _PYTHON + _text(")"),
            before=_text("["),
            between=_text(", "),
            after=_text("]"),
        ),
        "python",
    ),
    "LFM2": Family(
        _template(
            _NAME + _text("(") + _PYTHON + _text(")"),
            before=_text("<|tool_call_start|>["),
            between=_text(", "),
            after=_text("]<|tool_call_end|>"),
        ),
        "lfm2",
        ("<|tool_call_start|>", "<|tool_call_end|>"),
    ),
}
