"""Chat templates in the manner of those that models who think are published with, written anew and as short as they can be."""

from __future__ import annotations

QWEN3 = """\
{#- writes tools, in <tool_call> #}
{%- set last = namespace(question=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set last.question = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- set thought = message.reasoning_content if message.reasoning_content is string else '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if thought and loop.index0 > last.question %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
    {%- endif %}
    {{- content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
"""A switch; thoughts since the last question are read again."""

DEEPSEEK_R1 = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|assistant|>' + message.content.split('</think>')[-1] + '<|end_of_turn|>' }}
    {%- else %}{{- '<|' + message.role + '|>' + message.content }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|><think>\\n' }}{%- endif %}
"""
"""Opens every thought itself, and reads none again."""

DEEPSEEK_V3 = """\
{%- for message in messages %}{{- '<|' + message.role + '|>' + message.content }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' + ('<think>' if thinking else '</think>') }}{%- endif %}
"""
"""Thinks where it is told to."""

MISTRAL = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- if message.content is string %}{{- message.content }}
        {%- else %}
            {%- for part in message.content %}
                {%- if part.type == 'thinking' %}{{- '[THINK]' + part.thinking + '[/THINK]' }}{%- else %}{{- part.text }}{%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '</s>' }}
    {%- else %}{{- '[INST]' + message.content + '[/INST]' }}{%- endif %}
{%- endfor %}
"""
"""Thoughts are parts of the content, between special tokens."""

GPT_OSS = """\
{{- '<|start|>system<|message|>Reasoning: ' + (reasoning_effort or 'medium') + '<|end|>' }}
{%- if tools %}
    {{- '<|start|>developer<|message|># Tools\\n\\n## functions\\n\\nnamespace functions {\\n\\n' }}
    {%- for tool in tools %}
        {{- '// ' + (tool.function.description or '') + '\\ntype ' + tool.function.name + ' = (_: {\\n' }}
        {%- for name, about in (tool.function.parameters.properties or {}).items() %}
            {{- name + ('' if name in (tool.function.parameters.required or []) else '?') + ': ' + (about.type or 'any') + ',\\n' }}
        {%- endfor %}
        {{- '}) => any;\\n\\n' }}
    {%- endfor %}
    {{- '} // namespace functions<|end|>' }}
{%- endif %}
{%- set last = namespace(call='') %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {%- if message.content and message.thinking %}{{ raise_exception('Put the analysis in one of content and thinking') }}{%- endif %}
        {%- if message.content or message.thinking %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' + (message.content or message.thinking) + '<|end|>' }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
        {{- call.arguments | tojson + '<|call|>' }}
        {%- set last.call = call.name %}
    {%- elif message.role == 'assistant' %}
        {%- if message.thinking and loop.last and not add_generation_prompt %}
            {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
        {%- endif %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
    {%- elif message.role == 'tool' %}
        {%- if not last.call %}{{ raise_exception('There is no call before this result') }}{%- endif %}
        {{- '<|start|>functions.' + last.call + ' to=assistant<|channel|>commentary<|message|>' + (message.content | tojson) + '<|end|>' }}
    {%- else %}{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}
"""
"""Thought, call and answer are messages of their own, in channels; there is a variable for how much to think. A message has one call, and
what is said before that is taken for a thought."""

NO_THOUGHTS = "{% for message in messages %}{{ message.role + ': ' + message.content + '\\n' }}{% endfor %}"
