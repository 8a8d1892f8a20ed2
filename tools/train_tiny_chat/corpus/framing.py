"""The same question as other people would put it: framed, worn down to its telling words, or with words that say nothing."""

from __future__ import annotations

from mm_gateway.workflows.prompts import Language
from tools.train_tiny_chat.corpus.draw import Draw

# fmt: off
_BEFORE = ["", "", "", "", "", "", "Hi! ", "Hello, ", "Please: ", "Quick question: ", "Hey, ", "Tell me: ", "I have a question. ", "Excuse me, ", "One more thing: ", "So, ", "Okay. ", "Sorry, "]
_AFTER = ["", "", "", "", "", "", "", " Thanks!", " Thank you.", " Please be brief.", " I am new here."]
_BEFORE_ZH = ["", "", "", "", "", "请问，", "你好，", "问一下，", "我想知道，", "麻烦问一下，", "那么，"]
# fmt: on


def framed(draw: Draw, question: str, language: Language) -> str:
    """Places such as {e} that are filled later stay whole."""
    return _framed_zh(draw, question) if language == "zh" else _framed(draw, question)


def _framed(draw: Draw, question: str) -> str:
    if draw.chance(0.2):
        question = _worn_down(draw, question)
    if draw.chance(0.2):
        question = _padded(draw, question)
    if draw.chance(0.3):
        bare = question.rstrip("?.!")
        question = draw.expand(draw.one(_FRAMES)).replace("{q}", bare if draw.chance(0.3) else bare[0].lower() + bare[1:])
    if draw.chance(0.15):
        question = question.rstrip("?.!")
    if draw.chance(0.12):
        question = question.lower()
    if draw.chance(0.2):
        before = draw.one(_BEFORE)
        question = before + (question[0].lower() + question[1:] if before and draw.chance(0.5) else question) + draw.one(_AFTER)
    return question


_EMPTY = set(
    "a an the is are was be do does did can could may might will would should must to of in on at for with by from it its this that there i you we me my your how what which who where when why and or if so as have has had get please".split()
)
_FRAMES = [
    "(I would like to know|I want to know|I wonder|Can you tell me|Could you tell me|Please tell me|Do you know|Say)(:|,|) {q}(?|.)",
    "(Is there|There is) (something|anything) (about|on) this: {q}?",
    "(A question about|My question is|About) {q}(?|.)",
    "(For my project|At work|At home|Here|Now), {q}?",
    "{q}, (is that possible|can you explain|what do you say|how is that|do you know)?",
    "{q}? (I need|I want) to (know|understand) (it|that).",
    "(Explain|Show me|Help me with|Write down)(:|) {q}.",
    "(What about|How about|And) {q}?",
    "(I am looking for|I read about|Somebody asked me about|I have a problem with) {q}.",
    "(In short|Exactly|Roughly|In general), {q}?",
]
_FILLERS = "please exactly really here now actually for me with it in this case then also today again at all right somewhere by the way perhaps still only just already in my opinion I think as you know in general".split()


def _worn_down(draw: Draw, question: str) -> str:
    """What a question is about, as people type it into a search box, in any order."""
    telling = [word for word in question.rstrip("?.!").split() if word.lower().strip(",") not in _EMPTY]
    kept = [word for word in telling if "{" in word or draw.chance(0.85)] or telling
    if len(kept) < 2:
        return question
    return " ".join(draw.shuffled(kept) if draw.chance(0.4) else kept)


def _padded(draw: Draw, question: str) -> str:
    """With words that say nothing, and without some that do not matter."""
    tokens = [word for word in question.split() if word.lower() not in _EMPTY or draw.chance(0.75)] or question.split()
    for _ in range(draw.number(1, 3)):
        tokens.insert(draw.number(0, len(tokens) - 1), draw.one(_FILLERS))
    return " ".join(tokens)


_FRAMES_ZH = [
    "(我想知道|请告诉我|能不能说说|说一下|解释一下|想了解){q}",
    "{q}(，可以吗|，怎么回事|呢|，请说明|，请解释)？",
    "(关于|有个问题：|在这里，|我的项目里，|一般来说，){q}？",
    "(你能说出|你知道|到底|大概){q}(吗|)？",
    "{q}，我该(怎么办|怎么做)？",
    "(我想|我要|我需要){q}。",
]


def _framed_zh(draw: Draw, question: str) -> str:
    bare = question.rstrip("？。！")
    if draw.chance(0.15) and len(bare) > 4:  # worn down: a piece is missing
        at = draw.number(0, len(bare) - 2)
        shorter = bare[:at] + bare[at + draw.number(1, 2) :]
        if all(shorter.count(slot) == bare.count(slot) for slot in ("{e}", "{n}")):
            bare = shorter
            question = bare + draw.one(["？", "", "。"])
    if draw.chance(0.15):
        for word in ("怎么", "如何", "什么", "吗", "的", "是", "请", "可以", "有"):
            if draw.chance(0.4):
                bare = bare.replace(word, "", 1)
        question = (bare or question) + draw.one(["？", ""])
    if draw.chance(0.3):
        question = draw.expand(draw.one(_FRAMES_ZH)).replace("{q}", question.rstrip("？。！"))
    if draw.chance(0.15):
        question = question.rstrip("？。！") or question
    return draw.one(_BEFORE_ZH) + question if draw.chance(0.2) else question
