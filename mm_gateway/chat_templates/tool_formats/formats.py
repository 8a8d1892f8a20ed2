"""The table of tool formats; adding one is a row, and a module here where no other format is like it."""

from __future__ import annotations

from mm_gateway.chat_templates.tool_formats.format import ToolFormat
from mm_gateway.chat_templates.tool_formats.frame import Place
from mm_gateway.chat_templates.tool_formats.framed import JsonCalls
from mm_gateway.chat_templates.tool_formats.harmony import HarmonyCalls
from mm_gateway.chat_templates.tool_formats.hermes import Hermes
from mm_gateway.chat_templates.tool_formats.llama_json import LlamaJson
from mm_gateway.chat_templates.tool_formats.plain import Plain
from mm_gateway.chat_templates.tool_formats.python_calls import PythonCalls
from mm_gateway.chat_templates.tool_formats.react import React
from mm_gateway.chat_templates.tool_formats.tagged import TaggedCalls

NAME, KEY, VALUE, NUMBER, ID = Place.NAME, Place.KEY, Place.VALUE, Place.NUMBER, Place.ID

_HUB = "https://huggingface.co"

# The first that fits a template is taken: what holds another's calls within its own goes before that one.
_ROWS: tuple[ToolFormat, ...] = (
    Hermes(),
    LlamaJson(),
    React(),
    Plain(),
    TaggedCalls(
        "qwen3-xml",
        "Qwen3-Coder, Qwen3.5, Nemotron 3",
        f"{_HUB}/Qwen/Qwen3-Coder-30B-A3B-Instruct (chat_template.jinja)",
        opening="<tool_call>",
        head=("<tool_call>\n<function=", NAME, ">\n"),
        argument=("<parameter=", KEY, ">\n", VALUE, "\n</parameter>\n"),
        tail=("</function>\n</tool_call>",),
        between="\n",
    ),
    TaggedCalls(
        "seed-xml",
        "Seed-OSS",
        f"{_HUB}/ByteDance-Seed/Seed-OSS-36B-Instruct (chat_template.jinja)",
        opening="<seed:tool_call>",
        head=("<seed:tool_call>\n<function=", NAME, ">\n"),
        argument=("<parameter=", KEY, ">", VALUE, "</parameter>\n"),
        tail=("</function>\n</seed:tool_call>",),
        between="\n",
    ),
    TaggedCalls(
        "glm",
        "GLM 4.5 and later",
        f"{_HUB}/zai-org/GLM-4.5 (chat_template.jinja)",
        opening="<tool_call>",
        head=("<tool_call>", NAME, "\n"),
        argument=("<arg_key>", KEY, "</arg_key>\n<arg_value>", VALUE, "</arg_value>\n"),
        tail=("</tool_call>",),
        between="\n",
    ),
    TaggedCalls(
        "minimax",
        "MiniMax M2",
        f"{_HUB}/MiniMaxAI/MiniMax-M2 (docs/tool_calling_guide.md)",
        begin="<minimax:tool_call>\n",
        opening="<minimax:tool_call>",
        head=('<invoke name="', NAME, '">\n'),
        argument=('<parameter name="', KEY, '">', VALUE, "</parameter>\n"),
        tail=("</invoke>\n",),
        end="</minimax:tool_call>",
    ),
    JsonCalls(
        "deepseek-v3",
        "DeepSeek V3, R1",
        f"{_HUB}/deepseek-ai/DeepSeek-V3 (tokenizer_config.json)",
        begin="<｜tool▁calls▁begin｜>",
        head=("<｜tool▁call▁begin｜>function<｜tool▁sep｜>", NAME, "\n```json\n"),
        tail=("\n```<｜tool▁call▁end｜>",),
        between="\n",
        end="<｜tool▁calls▁end｜>",
    ),
    JsonCalls(
        "deepseek-v3.1",
        "DeepSeek V3.1",
        f"{_HUB}/deepseek-ai/DeepSeek-V3.1 (README, ToolCall)",
        begin="<｜tool▁calls▁begin｜>",
        head=("<｜tool▁call▁begin｜>", NAME, "<｜tool▁sep｜>"),
        tail=("<｜tool▁call▁end｜>",),
        end="<｜tool▁calls▁end｜>",
    ),
    JsonCalls(
        "kimi",
        "Kimi K2",
        f"{_HUB}/moonshotai/Kimi-K2-Instruct (docs/tool_call_guidance.md)",
        begin="<|tool_calls_section_begin|>",
        head=("<|tool_call_begin|>functions.", NAME, ":", NUMBER, "<|tool_call_argument_begin|>"),
        tail=("<|tool_call_end|>",),
        end="<|tool_calls_section_end|>",
        call_id="functions.name:number",
    ),
    JsonCalls(
        "mistral",
        "Mistral since 2025-07 (tokenizer v13): Magistral, Devstral, Mistral Medium",
        "https://docs.mistral.ai (mistral-common, tokens/tokenizers/instruct.py)",
        head=("[TOOL_CALLS]", NAME, "[ARGS]"),
        tail=("",),
        call_id="nine",
    ),
    JsonCalls(
        "mistral-call-id",
        "Mistral Small 3.1, 3.2 (tokenizer v11)",
        "https://docs.mistral.ai (mistral-common, tokens/tokenizers/instruct.py)",
        head=("[TOOL_CALLS]", NAME, "[CALL_ID]", ID, "[ARGS]"),
        tail=("",),
        call_id="nine",
    ),
    JsonCalls(
        "mistral-list",
        "Mistral 7B v0.3, Nemo, Large 2 (tokenizers v2 to v7)",
        "https://docs.mistral.ai (mistral-common, tokens/tokenizers/instruct.py)",
        begin="[TOOL_CALLS][",
        opening="[TOOL_CALLS]",
        head=('{"name": "', NAME, '", "arguments": '),
        tail=((', "id": "', ID, '"'), "}"),
        between=", ",
        end="]",
        call_id="nine",
    ),
    JsonCalls(
        "phi4",
        "Phi-4 mini",
        f"{_HUB}/microsoft/Phi-4-mini-instruct (README, Tool-enabled function-calling format)",
        begin="<|tool_call|>[",
        opening="<|tool_call|>",
        head=('{"name": "', NAME, '", "arguments": '),
        tail=("}",),
        between=", ",
        end="]<|/tool_call|>",
    ),
    JsonCalls(
        "granite",
        "Granite 3",
        f"{_HUB}/ibm-granite/granite-3.3-8b-instruct (tokenizer_config.json)",
        begin="<|tool_call|>[",
        opening="<|tool_call|>",
        head=('{"name": "', NAME, '", "arguments": '),
        tail=("}",),
        between=", ",
        end="]",
    ),
    JsonCalls(
        "cohere",
        "Command R7B, Command A",
        "https://docs.cohere.com (prompting, structure of a prompt with tools)",
        begin="<|START_ACTION|>[\n    ",
        opening="<|START_ACTION|>",
        head=('{"tool_call_id": "', NUMBER, '", "tool_name": "', NAME, '", "parameters": '),
        tail=("}",),
        between=",\n    ",
        end="\n]<|END_ACTION|>",
    ),
    JsonCalls(
        "hunyuan",
        "Hunyuan A13B",
        f"{_HUB}/tencent/Hunyuan-A13B-Instruct (tokenizer_config.json)",
        begin="<tool_calls>\n",
        opening="<tool_calls>",
        head=("<tool_call>", NAME, "\n```json\n"),
        tail=("\n```</tool_call>",),
        between="\n",
        end="\n</tool_calls>",
    ),
    HarmonyCalls(),
    PythonCalls(
        "lfm2",
        "LFM2",
        f"{_HUB}/LiquidAI/LFM2-1.2B (README, Tool use)",
        begin="<|tool_call_start|>[",
        opening="<|tool_call_start|>",
        end="]<|tool_call_end|>",
    ),
    PythonCalls(
        "python",
        "Llama 3.2 and 4 with a pythonic template, ToolACE, OLMo 3",
        "https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_2 (zero-shot function calling)",
        begin="[",
        end="]",
        only_at_start=True,
    ),
)

TOOL_FORMATS: dict[str, ToolFormat] = {row.name: row for row in _ROWS}
