"""Texts as the words that are searched for: Chinese segmented by rjieba, everything else split at what is no letter or digit."""

from __future__ import annotations

import re
import unicodedata

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_RUN = re.compile(rf"(?P<cjk>[{_CJK}]+)|(?:(?![{_CJK}])[^\W_])+")

MAX_QUERY_WORDS = 32

STOP_WORDS = frozenset(
    """a about am an and any are as at be been but by can could did do does for from get had has have he her his how i if in into is it
    its just let me my no not of on one or our out please she should so some such tell than that the their them then there these they
    this those to up us was we were what when where which who whom whose why will with would you your
    的 了 是 在 和 与 及 或 也 都 就 而 吗 呢 吧 啊 呀 我 你 您 他 她 它 我们 你们 他们 这 那 这个 那个 这些 那些 什么 怎么 怎样 怎么样
    如何 为什么 为何 哪 哪个 哪些 哪里 谁 多少 几 有 没有 把 被 让 给 对 从 到 请 请问 可以 能 会 要 应该 一个 一下 告诉 介绍""".split()  # noqa: SIM905
)


def words(text: str, *, overlapping: bool = True) -> list[str]:
    """Every word in its order, case folded. overlapping: of a long Chinese word its parts as well, as an index wants them."""
    found: list[str] = []
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        if run["cjk"] is None:
            found.append(run[0])
        else:
            found += _segmented(run[0], overlapping)
    return found


def query_words(text: str, *, overlapping: bool = False) -> list[str]:
    """What to look for: words once each, without those that say nothing (all of them, where there are no others), at most 32."""
    found = dict.fromkeys(words(text, overlapping=overlapping))
    telling = [word for word in found if word not in STOP_WORDS]
    return (telling or list(found))[:MAX_QUERY_WORDS]


def _segmented(text: str, overlapping: bool) -> list[str]:
    # rjieba reads its dictionary at import (0.1 s), which only those who search pay for.
    import rjieba

    return rjieba.cut_for_search(text) if overlapping else rjieba.cut(text)
