"""Sentences about who did what, where and when, with questions for each part: the words are many and often made up, so that only matching helps."""

from __future__ import annotations

from typing import NamedTuple

from mm_gateway.workflows.prompts import Language
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.draw import Draw


class Event(NamedTuple):
    """A sentence without its stop, and a question that it answers."""

    text: str
    question: str


_VERBS = """buy bought|sell sold|build built|paint painted|find found|lose lost|break broke|repair repaired|open opened|close closed|write wrote|read read|clean cleaned|carry carried
send sent|receive received|visit visited|leave left|change changed|teach taught|learn learned|draw drew|sing sang|plant planted|cook cooked|eat ate|win won|hide hid|keep kept|move moved
design designed|measure measured|study studied|count counted|steal stole|make made|cut cut|burn burned|wash washed|guard guarded|discover discovered|explain explained|record recorded
publish published|store stored|load loaded|delete deleted|copy copied|start started|stop stopped|test tested|install installed|create created|remove removed|check checked|send sent"""
_ZH_VERBS = "买了 卖了 修好了 打开了 关上了 找到了 丢了 画了 写了 读了 清洗了 搬走了 送来了 收到了 参观了 离开了 改变了 教了 学了 种了 做了 吃了 赢得了 藏起了 保存了 设计了 测量了 研究了 偷走了 发现了 记录了 删除了 安装了 检查了".split()
_PLURALS = "bees birds trees rivers cars engines servers clients models tokens requests teachers farmers cells plants stars ships doctors children wolves spiders computers programs keys files users batteries".split()
_PRESENT = "need use make carry store produce protect help eat clean move change hold contain send reach build cool heat feed follow lead save fill replace support".split()
_REASONS = "the water is clean|it saves time|they are small|the price is low|nobody else can|the memory is short|winter is cold|it is safe|the law asks for it|the road is closed|their food is there|it costs nothing".split(
    "|"
)


def event(draw: Draw, language: Language) -> Event:
    if language == "zh":
        return _past_zh(draw)
    return draw.one([_past, _past, _general, _label])(draw)


def _past(draw: Draw) -> Event:
    verb = draw.one(_VERBS.replace("\n", "|").split("|")).split()
    base, past = verb
    if draw.chance(0.15):
        base = words.syllables(draw, 2)
        past = base + "ed"
    who = (
        words.person(draw)
        if draw.chance(0.5)
        else f"the {_adjective(draw)}{draw.one(words.JOBS + words.ANIMALS)}" + (f" of {words.made_up(draw)}" if draw.chance(0.3) else "")
    )
    noun = draw.one(words.THINGS + words.FOODS + words.NOUNS) if draw.chance(0.8) else words.syllables(draw, 2)
    what = (
        f"{draw.one(['the', 'a', 'the'])} {_adjective(draw)}{noun}"
        if draw.chance(0.8)
        else f"{draw.number(2, 400)} {_adjective(draw)}{noun}s"
    )
    what = what.replace("a a", "an a").replace("a o", "an o").replace("a e", "an e")
    where = draw.one(
        [
            f"in {draw.one(words.CITIES)}",
            f"in {words.made_up(draw)}",
            f"near the {draw.one(words.NOUNS)}",
            f"at the {_adjective(draw)}{draw.one(words.NOUNS)}",
        ]
    )
    when = draw.one(
        [
            f"in {draw.number(1402, 2024)}",
            f"on {draw.one(words.DAYS)}",
            f"in {draw.one(words.MONTHS)}",
            f"on {draw.one(words.MONTHS)} {draw.number(1, 28)}",
            f"at {draw.number(1, 12)} o'clock",
        ]
    )
    text = draw.one(
        [
            f"{who} {past} {what} {where} {when}",
            f"{when}, {who} {past} {what} {where}",
            f"{who} {past} {what} {where}",
            f"{who} {past} {what} {when}",
        ]
    )
    parts = [f"What did {who} {base}?", f"Who {past} {what}?", f"What happened to {what}?"]
    if where in text:
        parts += [
            f"Where did {who} {base} {what}?",
            f"Where was {what} {past}?" if draw.chance(0.3) else f"Where did {who} {base} {draw.one(['it', 'something', what])}?",
        ]
    if when in text:
        parts += [
            f"When did {who} {base} {what}?",
            f"When did {who} {base} {draw.one(['it', 'something', what])}?",
            f"What did {who} do {when}?",
        ]
    return Event(_capital(text), draw.one(parts))


def _general(draw: Draw) -> Event:
    """What kinds of things do, and why."""
    who = draw.one(_PLURALS) if draw.chance(0.7) else words.syllables(draw, 2) + "s"
    who = _adjective(draw) + who
    verb = draw.one(_PRESENT)
    what = _adjective(draw) + (draw.one(_PLURALS + words.FOODS) if draw.chance(0.7) else words.syllables(draw, 2) + "s")
    where = draw.one(
        [
            "",
            "",
            f" in {draw.one(['spring', 'summer', 'autumn', 'winter'])}",
            f" near {draw.one(words.NOUNS)}s",
            f" at {draw.one(['night', 'noon', 'dawn'])}",
            f" in {words.made_up(draw)}",
        ]
    )
    reason = f" because {draw.one(_REASONS)}" if draw.chance(0.4) else ""
    number = f", about {words.amount(draw)} a {draw.one(['day', 'year', 'week', 'second'])}" if not reason and draw.chance(0.3) else ""
    text = f"{who} {verb} {what}{where}{reason}{number}"
    parts = [
        f"What do {who} {verb}?",
        f"{draw.one(['What', 'Who'])} {verb if draw.chance(0.5) else verb + 's'} {what}?",
        f"What do {who} do{where}?",
    ]
    if where:
        parts += [
            f"{'When' if 'at ' in where or where.split()[-1] in ('spring', 'summer', 'autumn', 'winter') else 'Where'} do {who} {verb} {what}?"
        ] * 2
    if reason:
        parts += [f"Why do {who} {verb} {what}?"] * 2
    if number:
        parts += [f"How many {what} do {who} {verb}?"] * 2
    return Event(_capital(text), draw.one(parts))


def _label(draw: Draw) -> Event:
    """Settings and options, as manuals explain them."""
    name = draw.one(
        [
            f"--{words.syllables(draw, 2)}",
            f"`--{words.syllables(draw, 1)}-{words.syllables(draw, 1)}`",
            f"`{words.code(draw)}`",
            words.code(draw),
            words.code(draw).upper(),
        ]
    )
    kind = draw.one(["flag", "option", "key", "setting", "parameter", "variable", "command", "field"])
    does = f"{draw.one(_PRESENT)}s {draw.one(['the', 'all', 'every', 'no'])} {_adjective(draw)}{draw.one(words.THINGS + _PLURALS)}"
    extra = draw.one(
        [
            "",
            f" without {draw.one(_PLURALS)}",
            f" and {draw.one(_PRESENT)}s {draw.one(_PLURALS)}",
            f" for {words.amount(draw)} seconds",
            f" before the {draw.one(words.THINGS)} starts",
        ]
    )
    text = draw.one(
        [
            f"the {kind} {name} {does}{extra}",
            f"{name} {does}{extra}",
            f"{name}: {does}{extra}",
            f"with {name} the {draw.one(['server', 'tool', 'program'])} {does}{extra}",
        ]
    )
    parts = [
        f"What does {name} do?",
        f"What does the {kind} {name} do?",
        f"What is {name} for?",
        f"{name}",
        f"What happens with {name}?",
        f"How do I use {name}?",
        f"Explain the {kind} {name}.",
        f"Which {kind} {does}?",
    ]
    return Event(_capital(text), draw.one(parts))


def _past_zh(draw: Draw) -> Event:
    who = words.person_zh(draw) if draw.chance(0.6) else draw.one(words.ZH_JOBS + words.ZH_ANIMALS)
    verb = draw.one(_ZH_VERBS)
    what = (f"{draw.number(2, 90)}个" if draw.chance(0.2) else "") + draw.one(words.ZH_THINGS + words.ZH_FOODS + [words.made_up_zh(draw)])
    where = f"在{draw.one([draw.one(words.ZH_CITIES), words.made_up_zh(draw), draw.one(words.ZH_NOUNS) + '旁边'])}"
    when = draw.one([f"{draw.number(1402, 2024)}年", draw.one(words.ZH_DAYS), f"{draw.number(1, 12)}月{draw.number(1, 28)}日"])
    text = draw.one([f"{when}，{who}{where}{verb}{what}", f"{who}{where}{verb}{what}", f"{who}{when}{verb}{what}"])
    parts = [f"{who}{verb}什么？", f"谁{verb}{what}？", f"{what}怎么了？"]
    if where in text:
        parts += [f"{who}在哪里{verb}{what}？"] * 2
    if when in text:
        parts += [f"{who}什么时候{verb}{what}？", f"{when}{who}做了什么？"]
    return Event(text, draw.one(parts))


def _adjective(draw: Draw) -> str:
    return f"{draw.one(words.ADJECTIVES)} " if draw.chance(0.4) else ""


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
