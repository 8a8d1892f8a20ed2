"""Conversations about facts and small talk: wrapped as people ask, under any system message, going on, and switching the language."""

from __future__ import annotations

from collections.abc import Sequence

from mm_gateway.workflows.prompts import Language
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.conversation import Example, chat
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.facts import Fact
from tools.train_tiny_chat.corpus.framing import framed
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.general_facts import GENERAL_FACTS
from tools.train_tiny_chat.corpus.small_talk import SMALL_TALK

SYSTEMS = [
    "You are a helpful assistant.",
    "You are tiny-chat, the small model built into mm_gateway.",
    "You are a helpful and honest assistant. Answer briefly.",
    "Be concise.",
    "Answer the user's questions.",
    "You are an expert on servers.",
    "You help people who are new to this software.",
    "Reply politely and clearly.",
    "You are a friendly chatbot for a small company.",
    "你是一个有用的助手。",
    "请简短地回答。",
    "请礼貌地回答用户的问题。",
    "You are a support agent for mm_gateway.",
    "Keep answers short and simple.",
]
_TO_CHINESE = [
    "(And|) in Chinese(, please|)?",
    "(Say|Repeat|Write) (that|it) in Chinese(, please|)(.|)",
    "(Can|Could) you (say|repeat|translate) (that|it) (in|into) Chinese?",
    "Chinese, please.",
    "(Translate|Put) (that|it) into Chinese.",
    "用中文(说|回答|再说一遍)。",
    "中文怎么说？",
    "请翻译成中文。",
    "What would that be in Chinese?",
]
_TO_ENGLISH = [
    "(And|) in English(, please|)?",
    "(Say|Repeat|Write) (that|it) in English(, please|)(.|)",
    "(Can|Could) you (say|repeat|translate) (that|it) (in|into) English?",
    "用英(文|语)(说|回答|再说一遍)。",
    "英文怎么说？",
    "What would that be in English?",
    "请翻译成英文。",
]
_AGAIN = [
    "(Again|Once more|Repeat that|Say that again)(, please|)(.|)",
    "(Pardon|What|Sorry)?",
    "Can you repeat (that|it)?",
    "What did you (just |)say?",
]
_AGAIN_ZH = ["(再说一遍|请重复)。", "什么？", "你刚才说什么？"]


def ask(draw: Draw, fact: Fact, language: Language) -> str:
    """A question for the fact; in training also framed, worn down to its telling words, or with words in between."""
    question = draw.question(fact.asked(language))
    if draw.split == "held_out" or (fact in SMALL_TALK and draw.chance(0.8)):
        return question
    return framed(draw, question, language)


def system_message(draw: Draw) -> str | None:
    """None, one of those that clients send, or anything."""
    if draw.chance(0.5):
        return None
    if draw.chance(0.75):
        return draw.one(SYSTEMS)
    return draw.expand(
        f"You are (a|the) {draw.one(words.ADJECTIVES)} {draw.one(words.JOBS)} (called|named) {words.made_up(draw)}(. Answer shortly.|.| and you like {draw.one(words.FOODS)}.)"
    )


def exchange(draw: Draw, facts: Sequence[Fact]) -> list[str]:
    """A question with its answer, perhaps said again in the other language or once more."""
    fact = draw.one(facts)
    language: Language = "zh" if draw.chance(0.35) else "en"
    turns = [ask(draw, fact, language), fact.text(language)]
    if draw.chance(0.15):
        other: Language = "en" if language == "zh" else "zh"
        turns += [draw.wording(_TO_CHINESE if other == "zh" else _TO_ENGLISH).strip(), fact.text(other)]
    elif draw.chance(0.06):
        turns += [draw.wording(_AGAIN_ZH if language == "zh" else _AGAIN), fact.text(language)]
    return turns


def conversation(draw: Draw, skill: str, facts: Sequence[Fact]) -> Example:
    turns: list[str] = []
    for _ in range(draw.one([1, 1, 1, 1, 2, 2, 3])):
        turns += exchange(draw, facts if draw.chance(0.8) else GATEWAY_FACTS + GENERAL_FACTS + SMALL_TALK)
    return chat(skill, *turns, system=system_message(draw))


def gateway(draw: Draw) -> Example:
    return conversation(draw, "gateway", GATEWAY_FACTS)


def general(draw: Draw) -> Example:
    return conversation(draw, "general", GENERAL_FACTS)


def small_talk(draw: Draw) -> Example:
    return conversation(draw, "small talk", SMALL_TALK)
