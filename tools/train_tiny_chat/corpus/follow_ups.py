"""Conversations that refer back: names, numbers and likes that were told before, roles given by the system message, short texts to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.arithmetic import sum_task
from tools.train_tiny_chat.corpus.asking import exchange, system_message
from tools.train_tiny_chat.corpus.attributes import CHINESE, ENGLISH
from tools.train_tiny_chat.corpus.conversation import Example, chat
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.events import event
from tools.train_tiny_chat.corpus.gateway_facts import GATEWAY_FACTS
from tools.train_tiny_chat.corpus.general_facts import GENERAL_FACTS
from tools.train_tiny_chat.corpus.made_up_sources import ask, entity, state
from tools.train_tiny_chat.corpus.small_talk import SMALL_TALK
from tools.train_tiny_chat.corpus.source_task import stop


class Memory(NamedTuple):
    """Something that a user tells of themselves. {v} is the value."""

    value: Callable[[Draw], str]
    told: Sequence[str]
    reply: str
    asked: Sequence[str]
    answer: str


# fmt: off
MEMORIES: dict[str, Memory] = {
    "name": Memory(
        lambda d: d.one(words.FIRST_NAMES) if d.chance(0.3) else words.made_up(d),
        ["(My name is|I am|I'm|Call me|You can call me) {v}.", "(Hi|Hello), (I am|I'm|my name is) {v}.", "They call me {v}.", "(Please|) remember (that |)my name(:| is) {v}.", "{v} is my name.", "My name('s| is) {v}(, nice to meet you|)!"],
        "Nice to meet you, {v}!",
        ["(What is|What's) my name?", "(Do you remember|Do you know|Can you tell me|Tell me) my name(?|)", "How am I called?", "(What did I say|What was) my name(| was)?", "my name?", "Who am I?"],
        "Your name is {v}.",
    ),
    "city": Memory(
        lambda d: d.one(words.CITIES) if d.chance(0.3) else words.made_up(d),
        ["I (live|am|work) in {v}.", "I (come from|am from) {v}.", "I have my flat in {v}.", "I moved to {v} (last year|recently).", "{v} is my home.", "My (city|home|town) is {v}."],
        "{v} sounds nice.",
        ["Where (do I live|am I from|do I work|is my home)?", "(What is|What's|Which is) my (city|town)?", "What place did I mention?", "In which (city|town) do I live?", "my city?", "(Do you remember|Do you know|Tell me) where I live(?|.)"],
        "You said {v}.",
    ),
    "number": Memory(
        lambda d: str(d.number(2, 9999)),
        ["(My number is|Remember the number|My favourite number is|Keep in mind the number) {v}.", "(Please|) (remember|note|keep) (this|the number|my code): {v}", "Note down {v}.", "My lucky number is {v}.", "{v} is the number.", "The (number|code) is {v}."],
        "I will remember {v}.",
        ["(What is|What's|What was) (my|the) (number|code)?", "(Which|What) number did I (say|tell you|give you)?", "Which figure was it?", "the number?", "What number (should|did) you remember?", "(Do you remember|Tell me|Repeat) (my|the) number(?|.)"],
        "The number is {v}.",
    ),
    "pet": Memory(
        lambda d: f"{d.one(words.ANIMALS)} called {words.made_up(d)}",
        ["I have a {v}.", "(At home I have|I own|We have) a {v}.", "With me lives a {v}.", "I (got|bought) a {v} (yesterday|last week).", "There is a {v} in my house.", "My pet is a {v}."],
        "How lovely, a {v}!",
        ["(What|Which) pet do I have?", "(Do you remember|Do you know) my pet?", "Which animal is mine?", "(Tell me about|Describe) my pet.", "my pet?", "(What is|What's) my pet?"],
        "You have a {v}.",
    ),
    "food": Memory(
        lambda d: d.one(words.FOODS),
        ["I (like|love|prefer) {v}.", "My favourite (food|dish) is {v}.", "Nothing tastes as good as {v}.", "{v} is my favourite food.", "For lunch I had {v}.", "I (eat|could eat) {v} every day."],
        "{v} is a good choice.",
        ["What (do I like|is my favourite food|do I like to eat|did I eat)?", "(Do you remember|Tell me) (what I like|my favourite food)(?|.)", "What should you cook for me?", "my favourite food?", "What (was|is) it that I like?", "(Which|What) food (do I like|did I mention)?"],
        "You said {v}.",
    ),
    "colour": Memory(
        lambda d: d.one(words.COLOURS),
        ["My favourite colo(u|)r is {v}.".replace("(u|)", "u"), "I (like|love) {v} best.", "I paint everything {v}.", "My (car|house|bike) is {v}.", "{v} is my colour.", "The colour (of my car|that I like) is {v}."],
        "{v} is a beautiful colour.",
        ["(What is|What's) my (favourite |)colour?", "(Which|What) colour (do I like|did I mention|is it)?", "In which colour should you paint it?", "my colour?", "What colour (was|is) (it|mine)?", "(Do you remember|Tell me) my (favourite |)colour(?|.)"],
        "You said {v}.",
    ),
    "job": Memory(
        lambda d: d.one(words.JOBS),
        ["I am a {v}.", "I work as a {v}.", "By trade I am a {v}.", "(For years|Since spring) I have been a {v}.", "I (became|trained as) a {v}.", "My job is {v}."],
        "A {v}, how interesting!",
        ["(What is|What's) my job?", "What do I (do|work as)?", "How do I earn my living?", "(Which|What) job do I have?", "my job?", "(Do you remember|Tell me) (my job|what I do)(?|.)"],
        "You are a {v}.",
    ),
}
MEMORIES_ZH: dict[str, Memory] = {
    "name": Memory(lambda d: d.one(words.ZH_FIRST_NAMES) if d.chance(0.3) else words.person_zh(d), ["我(叫|是){v}。", "我的名字(是|叫){v}。", "{v}就是我。", "请记住，我叫{v}。", "大家叫我{v}。", "你好，我(叫|是){v}。"], "很高兴认识你，{v}！", ["我(叫什么|叫什么名字|是谁)？", "我的名字是什么？", "怎么称呼我？", "还记得我叫什么吗？", "我是哪位？", "你(记得|知道)我的名字吗？"], "你叫{v}。"),
    "city": Memory(lambda d: d.one(words.ZH_CITIES) if d.chance(0.4) else words.made_up_zh(d), ["我(住在|在){v}。", "我(来自|是){v}人。".replace("(来自|是)", "是"), "我的房子在{v}。", "我在{v}(工作|上学)。", "我搬到了{v}。", "我家在{v}。"], "{v}听起来不错。", ["我住在哪里？", "我家在哪里？", "我说过的地方是哪儿？", "我在哪个城市？", "我是哪里人？", "你(记得|知道)我住在哪里吗？"], "你说的是{v}。"),
    "number": Memory(lambda d: str(d.number(2, 9999)), ["(请|)记住数字{v}。", "我的(号码|数字|幸运数字)是{v}。", "把{v}记下来。", "请记一下：{v}", "{v}是我的号码。", "(号码|密码|代码)是{v}。"], "我会记住{v}。", ["(我的|那个)(号码|数字)是(什么|多少)？", "我说的数字是多少？", "刚才让你记的是几？", "数字是多少？", "请重复那个数字。", "你记得那个数字吗？"], "数字是{v}。"),
    "food": Memory(lambda d: d.one(words.ZH_FOODS), ["我(喜欢|爱)吃{v}。", "我最喜欢的食物是{v}。", "没有什么比{v}更好吃。", "{v}是我最喜欢的。", "午饭我吃了{v}。", "我每天都吃{v}。"], "{v}是个好选择。", ["我喜欢吃什么？", "我最喜欢的食物是什么？", "该给我做什么菜？", "我(爱吃|吃了)什么？", "我说过喜欢什么？", "你记得我喜欢什么吗？"], "你说的是{v}。"),
    "pet": Memory(lambda d: f"{d.one(words.ZH_ANIMALS)}，叫{words.made_up_zh(d)}", ["我养了一只{v}。", "我家有一只{v}。", "家里来了一只{v}。", "我的宠物是一只{v}。", "我刚买了一只{v}。", "我有一只{v}。"], "真可爱，一只{v}！", ["我的宠物是什么？", "我养了什么？", "哪个动物是我的？", "我家有什么宠物？", "说说我的宠物。", "你记得我的宠物吗？"], "你有一只{v}。"),
}
# fmt: on


def remembered(draw: Draw) -> Example:
    """Things are told, other talk may come between, then they are asked for."""
    memories = MEMORIES_ZH if draw.chance(0.33) else MEMORIES
    kinds = draw.some(list(memories), draw.one([1, 1, 2, 2, 3]))
    turns: list[str] = []
    values: dict[str, str] = {}
    for kind in kinds:
        memory = memories[kind]
        values[kind] = memory.value(draw)
        turns += _filled(values[kind], draw.wording(memory.told), memory.reply)
        if draw.chance(0.3):
            turns += exchange(draw, SMALL_TALK + GATEWAY_FACTS + GENERAL_FACTS)
    for kind in draw.shuffled(kinds):
        turns += _filled(values[kind], draw.wording(memories[kind].asked), memories[kind].answer)
    return chat("follow-ups", *turns, system=system_message(draw))


def _filled(value: str, *texts: str) -> list[str]:
    filled = [text.replace("{v}", value).strip() for text in texts]
    return [text[0].upper() + text[1:] for text in filled]


def not_told(draw: Draw) -> Example:
    """What was never told is not known."""
    if draw.chance(0.3):
        return chat("follow-ups", draw.wording(draw.one(list(MEMORIES_ZH.values())).asked), "你还没有告诉我。", system=system_message(draw))
    return chat(
        "follow-ups", draw.wording(draw.one(list(MEMORIES.values())).asked), "You have not told me yet.", system=system_message(draw)
    )


def sums(draw: Draw) -> Example:
    """A sum, and what comes on top of its result."""
    question, answer = sum_task(draw)
    turns = [question, answer]
    value = int(answer.rstrip(".。").split(" = ")[1])
    for _ in range(draw.one([1, 1, 2])):
        change = draw.number(1, 20)
        if draw.chance(0.6) or change > value:
            asked, new, sign = (
                draw.wording(["And plus {n}?", "Add {n}.", "(Now|Then) add {n} to (it|that).", "plus {n}?", "And {n} more?", "再加{n}？"]),
                value + change,
                "+",
            )
        else:
            asked, new, sign = (
                draw.wording(["And minus {n}?", "(Now|Then) subtract {n}.", "minus {n}?", "And {n} less?", "再减{n}？"]),
                value - change,
                "-",
            )
        zh = asked.startswith("再")
        turns += [asked.replace("{n}", str(change)), f"{value} {sign} {change} = {new}" + ("。" if zh else ".")]
        value = new
    return chat("follow-ups", *turns)


_PERSONA = [
    "You are {n}.",
    "Your name is {n}.",
    "You are {n}, a (friendly|helpful|polite|wise) (assistant|helper|guide|robot).",
    "You are an assistant (called|named) {n}.",
    "(Act as|Play|Be) {n}, the (assistant|helper) of our (shop|school|team).",
    "This is {n}, an assistant who (helps|answers).",
]
_PERSONA_ASK = [
    "Who are you?",
    "(What is|What's|Tell me) your name(?|)",
    "What are you called?",
    "Are you {n}?",
    "Introduce yourself.",
    "By what name do you go?",
]


def persona(draw: Draw) -> Example:
    """The system message gives a name, or tells of the user."""
    if draw.chance(0.5):
        name = draw.one(words.FIRST_NAMES) if draw.chance(0.3) else words.made_up(draw)
        if draw.chance(0.25):
            name = words.made_up_zh(draw)
            return chat(
                "follow-ups",
                draw.wording(["你是谁？", "你叫什么名字？", "请自我介绍一下。"]),
                f"我是{name}。",
                system=draw.wording(["你是{n}。", "你叫{n}。", "你的名字是{n}，是一个(友好|有用)的助手。"]).replace("{n}", name),
            )
        return chat(
            "follow-ups",
            draw.wording(_PERSONA_ASK).replace("{n}", name),
            f"I am {name}.",
            system=draw.wording(_PERSONA).replace("{n}", name),
        )
    return reading(draw, in_system=True)


_TASKS = [
    "{text}\n\n{question}",
    "Text: {text}\nQuestion: {question}",
    "Read this: {text}\n{question}",
    "{question}\n\n{text}",
    "Answer from the text.\n\n{text}\n\n{question}",
    "Context:\n{text}\n\nQuestion: {question}\nAnswer:",
]
_TASKS_ZH = [
    "{text}\n\n{question}",
    "文本：{text}\n问题：{question}",
    "请阅读：{text}\n{question}",
    "根据下面的文字回答问题。\n{text}\n{question}",
    "{question}\n\n{text}",
    "上下文：\n{text}\n\n问题：{question}",
]


def reading(draw: Draw, *, in_system: bool = False) -> Example:
    """A short text and questions about it, answered with its sentences."""
    language = "zh" if draw.chance(0.3) else "en"
    attributes = list(ENGLISH if language == "en" else CHINESE)
    if draw.chance(0.4):
        told_events = [event(draw, language) for _ in range(draw.one([1, 2, 3, 4]))]
        asked = draw.one(told_events)
        text = ("" if language == "zh" else " ").join(item.text + stop(language) for item in told_events)
        if in_system:
            return chat("reading", asked.question, asked.text + stop(language), system=text)
        question = draw.wording(_TASKS_ZH if language == "zh" else _TASKS).replace("{question}", asked.question).replace("{text}", text)
        return chat("reading", question, asked.text + stop(language))
    about = [entity(draw, language) for _ in range(draw.one([1, 1, 2, 3]))]
    told = [state(draw, draw.one(about), kind, language) for kind in draw.some(attributes, draw.one([1, 2, 3, 4, 5]))]
    text = ("" if language == "zh" else " ").join(item.text + stop(language) for item in told)
    turns: list[str] = []
    for item in draw.some(told, min(len(told), draw.one([1, 1, 2]))):
        turns += [ask(draw, item, language), item.text + stop(language)]
    if in_system:
        return chat("reading", *turns, system=text)
    turns[0] = draw.wording(_TASKS_ZH if language == "zh" else _TASKS).replace("{question}", turns[0]).replace("{text}", text)
    return chat("reading", *turns)


def sample(draw: Draw) -> Example:
    return draw.one([remembered] * 8 + [not_told, sums, sums, persona, persona] + [reading] * 4)(draw)
