"""The words of two notations: Lark in llguidance's dialect, and the regular expressions in it. What they mean is for whoever reads them."""

from __future__ import annotations

import re

# Long runs at once, without a way back: one match keeps the interpreter to itself until it ends.
LARK_TOKEN = re.compile(
    r"""(?P<comment>(?:\#|//)[^\n]*)
    |(?P<string>"(?:[^"\\\n]++|\\.)*+"i?)
    |/(?P<regex>(?:[^/\\]++|\\.)++)/[imslux]*
    |(?P<keyword>%[a-z]+)
    |(?P<name>_?[A-Za-z](?:[\w-]*\w)?)
    |(?P<literal><[^<>\s]+>|@[\w-]+|->\s*\w+)
    |\{(?P<repeat>\s*\d*\s*(?:,\s*\d*\s*)?)\}|~\s*(?P<times>\d+(?:\s*\.\.\s*\d+)?)
    |(?P<newline>\n)
    |(?P<sign>[^\s])""",
    re.VERBOSE | re.DOTALL,
)
REGEX_TOKEN = re.compile(
    r"""\\[pPxuU]\{[^}]*\}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}|\\. # escapes
    |\[\^?\]?(?:[^\]\\[]|\\.|\[[^\]]*\])*\]? # classes
    |\((?:\?[^:)]*:?)?|\)
    |\{(?P<low>\d*)(?P<comma>,?)(?P<high>\d*)\}
    |.""",
    re.VERBOSE | re.DOTALL,
)
