"""What the model cannot know: it says that it is small and knows little."""

from __future__ import annotations

from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.asking import system_message
from tools.train_tiny_chat.corpus.attributes import CHINESE, ENGLISH
from tools.train_tiny_chat.corpus.conversation import Example, chat
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.made_up_sources import ask, entity, state
from tools.train_tiny_chat.corpus.topics import topic

FALLBACK = "I do not know: I am a small built-in model and know little beyond this gateway. A larger model can tell you more."
FALLBACK_ZH = "我不知道：我是内置的小模型，除了这个网关知道得很少。更大的模型可以告诉你更多。"

_OPEN = [
    "(What do you think about|What is your opinion on|Discuss) {t}(?|)",
    "(Who invented|Who discovered|Who wrote|Who painted|Who won) {t}?",
    "(Write|Write me) (an essay|a report|an article|a letter|a song|a long text|a speech) about {t}.",
    "(How does|How do|Why does|Why do) {t} (work|exist|matter|change)?",
    "(What is the history of|What happened in the history of) {t}?",
    "(Explain|Describe) {t} (in detail|in depth|to an expert|step by step).",
    "(Compare|What is the difference between) {t} and {u}.",
    "(Give me|List) (ten|five|some) (facts|ideas|tips) (about|for|on) {t}.",
    "(When|In which year) (was|did) {t} (invented|begin|happen|end)?",
    "(Recommend|Suggest) (a book|a film|a course|something) (about|on) {t}.",
    "How (much|many|far|old|deep|heavy) is {t}?",
    "What should I know of {t} before I buy it?",
    "(Write|Give me) (a program|code|a function|a script) (for|that does|about) {t}.",
    "(What is the best|Where do I find the best) {t}?",
    "What does the (law|science|bible|press) say (about|on) {t}?",
    "(Summarize|Review) the (book|film|novel|paper) {t}.",
    "(Who is|Who was|Tell me about) {p}?",
    "Could {t} and {u} ever be the same?",
    "What is the (population|area|flag|president|currency|language) of {n}?",
    "(Solve|Prove|Calculate) the (integral|theorem|equation|riddle) of {n}.",
]
_OPEN_ZH = [
    "你觉得{t}怎么样？",
    "(谁发明了|谁发现了){t}？",
    "写一篇关于{t}的(文章|报告|作文)。",
    "{t}的历史是什么？",
    "(详细|深入)(解释|说明){t}。",
    "{t}和{u}有什么区别？",
    "给我(五个|十个)关于{t}的(事实|建议)。",
    "推荐一本关于{t}的书。",
    "{t}是什么时候(出现|发明)的？",
    "{p}是谁？",
    "写一个关于{t}的程序。",
    "请评价一下{t}。",
]


def sample(draw: Draw) -> Example:
    zh = draw.chance(0.3)
    if draw.chance(0.25):
        language = "zh" if zh else "en"
        question = ask(draw, state(draw, entity(draw, language), draw.one(list(CHINESE if zh else ENGLISH)), language), language)
    else:
        question = draw.wording(_OPEN_ZH if zh else _OPEN)
        language = "zh" if zh else "en"
        name = words.made_up_zh(draw) if zh else words.made_up(draw)
        who = words.person_zh(draw) if zh else words.person(draw)
        question = (
            question.replace("{t}", topic(draw, language)).replace("{u}", topic(draw, language)).replace("{p}", who).replace("{n}", name)
        )
    return chat("fallback", question, FALLBACK_ZH if zh else FALLBACK, system=system_message(draw))
