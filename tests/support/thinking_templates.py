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

SEED = """\
{%- if thinking_budget is defined and thinking_budget %}
    {{- '<seed:bos>system\\nThink for ' + (thinking_budget | string) + ' tokens at most, and count them.<seed:eos>' }}
{%- endif %}
{%- for message in messages %}
    {{- '<seed:bos>' + message.role }}
    {%- if message.role == 'assistant' and message.reasoning_content is string and message.reasoning_content.strip() %}
        {{- '\\n<seed:think>' + message.reasoning_content.strip() + '</seed:think>' }}
    {%- endif %}
    {{- '\\n' + message.content + '<seed:eos>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<seed:bos>assistant\\n' }}
    {%- if thinking_budget is defined and thinking_budget == 0 %}{{- '<seed:think>The budget is 0.\\n</seed:think>' }}{%- endif %}
{%- endif %}
"""
"""Seed-OSS: told its budget, and reads all thoughts again."""

COHERE = """\
{%- set thinks = reasoning if reasoning is defined else true %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}
        {%- for part in ([{'type': 'text', 'text': message.content}] if message.content is string else message.content) %}
            {%- if part.type == 'thinking' %}{{- '<|START_THINKING|>' + part.thinking + '<|END_THINKING|>' }}
            {%- else %}{{- '<|START_RESPONSE|>' + part.text + '<|END_RESPONSE|>' }}{%- endif %}
        {%- endfor %}
        {{- '<|END_OF_TURN_TOKEN|>' }}
    {%- else %}
        {{- '<|START_OF_TURN_TOKEN|><|' + message.role | upper + '_TOKEN|>' + message.content + '<|END_OF_TURN_TOKEN|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + ('<|START_THINKING|>' if thinks else '<|START_THINKING|><|END_THINKING|>') }}
{%- endif %}
"""
"""Command A Reasoning: opens each thought, its switch is called `reasoning`, thoughts are parts of the content."""

GEMMA = """\
{%- if enable_thinking %}{{- '<|turn>system\\n<|think|><turn|>\\n' }}{%- endif %}
{%- set last = namespace(question=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set last.question = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning and loop.index0 > last.question %}
        {{- '<|channel>thought\\n' + message.reasoning + '\\n<channel|>' }}
    {%- endif %}
    {{- message.content + '<turn|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|turn>model\\n' + ('' if enable_thinking else '<|channel>thought\\n<channel|>') }}
{%- endif %}
"""
"""Gemma 4: thinks where it is told to; a thought is a channel."""

KIMI = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '◁/think▷' in content %}{%- set content = content.split('◁/think▷')[-1].lstrip() %}{%- endif %}
    {{- '<|im_' + message.role + '|>' + message.role + '<|im_middle|>' + content + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{%- endif %}
"""
"""Kimi-VL Thinking: knows no field for thoughts, and takes them out of the text."""

GLM = """\
{%- set last = namespace(question=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set last.question = loop.index0 %}{%- endif %}{%- endfor %}
{{- '[gMASK]<sop>' }}
{%- for message in messages %}
    {{- '<|' + message.role + '|>\\n' }}
    {%- if message.role == 'assistant' %}
        {%- if message.reasoning_content is string and loop.index0 > last.question %}
            {{- '<think>' + message.reasoning_content.strip() + '</think>\\n' }}
        {%- else %}{{- '<think></think>\\n' }}{%- endif %}
    {%- endif %}
    {{- message.content }}
    {%- if message.role == 'user' and enable_thinking is defined and not enable_thinking %}{{- '/nothink' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' + ('\\n<think></think>' if enable_thinking is defined and not enable_thinking else '') }}
{%- endif %}
"""
"""GLM 4.5: earlier answers stand behind an empty thought."""

MINIMAX = """\
{%- set last = namespace(question=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set last.question = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {{- ']~b]' + ('ai' if message.role == 'assistant' else message.role) + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content and loop.index0 > last.question %}
        {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content + '[e~[\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- ']~b]ai\\n<think>\\n' }}{%- endif %}
"""
"""MiniMax M2: opens each thought, and reads those since the last question again."""

NO_THOUGHTS = "{% for message in messages %}{{ message.role + ': ' + message.content + '\\n' }}{% endfor %}"
