"""What a chat template may spend: runaways end as an error of their own, whichever way they grow."""

from __future__ import annotations

import time

import jinja2
import jinja2.sandbox
import pytest

from mm_gateway.chat_templates import budget
from mm_gateway.chat_templates.encoder import ChatEncoder
from mm_gateway.chat_templates.environment import ChatTemplate
from mm_gateway.core import Message
from mm_gateway.errors import ConfigurationError, InvalidRequestError
from mm_gateway.runtime.tokens.chat_tokenizer import ChatTokenizer
from tests.support.checkpoints import make_tokenizer

GROWING = {
    "percent width": "{{ '%1000000000d' % 1 }}",
    "percent width of a filter": "{{ '%1000000000d' | format(1) }}",
    "percent width as an argument": "{{ '%*d' % (1000000000, 1) }}",
    "multiplied text": "{{ 'a' * 10**9 }}",
    "multiplied by a text": "{{ 10**9 * 'a' }}",
    "multiplied list": "{{ ([0] * 10**9) | length }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "center in a map": "{{ ['a'] | map('center', 1000000000) | list }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "format method with a nested width": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "to_bytes": "{{ (1).to_bytes(1000000000, 'big') | length }}",
    "translate": "{{ ('a' * 1000000).translate({97: 'b' * 1000000}) }}",
    "indent": "{{ ('\n' * 1000000) | indent(1000000) }}",
    "json indent": "{{ [1] | tojson(indent=1000000000) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list | length }}",
    "slices": "{{ [1] | slice(1000000000) | list | length }}",
    "replace": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "replace nothing": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "join": "{{ (range(100000) | list) | join('a' * 1000000) }}",
    "join method": "{{ ('a' * 1000000).join(('b' * 100000) | list) }}",
    "strftime": "{{ strftime_now('%1000000000d') }}",
    "doubling by plus": "{% set n = namespace(x='ab') %}{% for _ in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by tilde": "{% set n = namespace(x='ab') %}{% for _ in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by a block": "{% set n = namespace(x='ab') %}{% for _ in range(60) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "doubling by a list": "{% set n = namespace(x=[1]) %}{% for _ in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "doubling by a mapping": "{% set n = namespace(x=1) %}{% for _ in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}",
    "output": "{% set x = 'a' * 1000000 %}{% for _ in range(100000) %}{{ x }}{% endfor %}",
    "kept slices": "{% set n = namespace(x=[], y='a' * 10000000) %}{% for _ in range(10000) %}{% set n.x = n.x + [n.y[1:]] %}{% endfor %}",
}
ENDLESS = {
    "nested loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "loops in a filter": "{% for a in range(100000) %}{% set x = range(100000) | list | sort | unique | list %}{% endfor %}",
    "calls": "".join(f"{{% macro m{i}() %}}{{{{ m{i + 1}() }}}}{{{{ m{i + 1}() }}}}{{% endmacro %}}" for i in range(40))
    + "{% macro m40() %}{% endmacro %}{{ m0() }}",
}


@pytest.mark.parametrize("source", GROWING.values(), ids=GROWING.keys())
def test_a_template_that_grows_without_end_is_stopped(source: str) -> None:
    with pytest.raises(jinja2.TemplateError):
        ChatTemplate(source).render()


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_template_that_goes_on_without_end_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.2)
    started = time.process_time()
    with pytest.raises(jinja2.TemplateError, match=r"longer than 0\.2 s"):
        ChatTemplate(source).render()
    assert time.process_time() - started < 5


@pytest.mark.parametrize("source", ["{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", GROWING["percent width"]])
def test_a_template_that_is_stopped_is_an_error_of_the_request(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="chat template") as caught:
        ChatEncoder(source, ChatTokenizer(make_tokenizer([]))).encode([Message("user", "Hello")])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("source", ["{{ " + "(" * 5000 + ")" * 5000 + " }}", "{{ x | unheard_of }}", "{% for %}", "{% if a %}" * 500])
def test_a_template_that_cannot_be_compiled_is_an_error_of_the_configuration(source: str) -> None:
    with pytest.raises(ConfigurationError, match="chat template"):
        ChatEncoder(source, ChatTokenizer(make_tokenizer([])))


ORDINARY = """
{%- set ns = namespace(system='', count=0) %}
{%- for m in messages if m.role != 'tool' %}{% set ns.count = ns.count + 1 %}{% endfor %}
{%- for m in messages %}
{{- loop.index0 ~ '/' ~ loop.length ~ (' first' if loop.first else '') ~ (' last' if loop.last else '') }}
{%- if loop.previtem %} after {{ loop.previtem.role }}{% endif %}
{%- for k, v in m.items() %} {{ k }}={{ v | trim | upper | replace('A', '4') }}{% endfor %}{{ "%s|%5d|" | format(m.role, 3) }}
{%- if loop.index0 == messages | length - 1 %} end{% endif %}
{%- endfor %}
{{- messages | map(attribute='role') | join(', ') }} {{ (messages | selectattr('role', 'equalto', 'user') | list)[0].content }}
{{- [1, 2] + [3] }} {{ messages[::-1] | tojson(indent=2) }} {{ 'a-b'.split('-')[1] * 3 }} {{ '{:>4}'.format('x') }} {{ ns.count % 2 }}
{%- macro greet(name='you') %}Hi {{ name }}{{ caller() if caller else '' }}{% endmacro %}{{ greet(name='me') }}
{%- call greet() %}!{% endcall %}{{ (1, 2) }}{{ {'a': [none, true]} }}{{ missing | default('none') }}{{ missing }}{{ 'user' in ['user'] }}
"""


def test_ordinary_templates_render_as_jinjas_own_sandbox_does() -> None:
    messages = [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": "a\nb"}, {"role": "assistant", "content": ""}]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, indent=None: ChatTemplate("{{ v | tojson(indent=i) }}").render(v=value, i=indent)
    assert ChatTemplate(ORDINARY).render(messages=messages) == environment.from_string(ORDINARY).render(messages=messages)
