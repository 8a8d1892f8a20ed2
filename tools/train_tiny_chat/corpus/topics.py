"""Topics of lessons and open questions: real ones, phrases, and made-up names."""

from __future__ import annotations

from mm_gateway.workflows.prompts import Language
from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.draw import Draw
from tools.train_tiny_chat.corpus.general_facts import DEFINITIONS

_TOPICS = """cooking|gardening|chess openings|world history|the French Revolution|the Roman Empire|linear algebra|calculus|geometry|statistics|English grammar|creative writing
public speaking|time management|first aid|healthy eating|the human body|the heart|the brain|dinosaurs|birds|insects|ocean life|the solar system|black holes|stars|climate change
renewable energy|solar power|electric cars|bicycles|trains|aeroplanes|ships|bridges|architecture|painting|drawing|photography|film making|theatre|dance|jazz|classical music
guitar|piano|singing|poetry|novels|fairy tales|philosophy|logic|ethics|psychology|sociology|economics|banking|stock markets|marketing|accounting|law|human rights|elections
geography|maps|rivers|mountains|deserts|volcanoes|earthquakes|weather|seasons|farming|bees|trees|flowers|soil|water|air|fire|metals|crystals|chemistry|acids and bases|physics
sound|light|magnets|electric circuits|computers|operating systems|networks|web servers|databases|SQL|Python loops|Python functions|recursion|sorting algorithms|version control|Git
Linux|shell scripts|Docker containers|REST APIs|JSON|unit tests|debugging|regular expressions|machine learning|neural networks|transformers|tokenizers|language models|robots
game design|board games|football|swimming|running|yoga|sleep|stress|friendship|teamwork|negotiation|job interviews|travel planning|map reading|sewing|pottery|woodworking|baking
fractions|percentages|prime numbers|triangles|negative numbers|decimals|multiplication|long division|probability|sets|graphs|functions|Spanish verbs|Chinese characters|the alphabet"""
_TOPICS_ZH = """烹饪|园艺|世界历史|线性代数|微积分|几何|统计|英语语法|写作|演讲|时间管理|急救|健康饮食|人体|心脏|恐龙|鸟类|昆虫|海洋生物|太阳系|黑洞|气候变化|可再生能源|自行车|火车|桥梁|建筑|绘画|摄影
舞蹈|古典音乐|吉他|钢琴|诗歌|小说|哲学|逻辑|心理学|经济学|银行|市场营销|会计|法律|地理|地图|河流|火山|地震|天气|农业|蜜蜂|树木|花|水|空气|金属|化学|物理|声音|光|磁铁|电路|计算机|操作系统|网络|数据库
Python循环|Python函数|递归|排序算法|版本控制|Linux|Docker容器|单元测试|正则表达式|机器学习|神经网络|语言模型|机器人|游戏设计|足球|游泳|跑步|睡眠|友谊|团队合作|旅行计划|分数|百分数|质数|三角形|负数|小数|乘法|概率|汉字|拼音|成语|唐诗|书法|茶文化"""

TOPICS: list[str] = [item for row in _TOPICS.splitlines() for item in row.split("|")]
TOPICS_ZH: list[str] = [item for row in _TOPICS_ZH.splitlines() for item in row.split("|")]
_DEFINED: list[tuple[str, str, str, str]] = [tuple(row.split("|")) for row in DEFINITIONS.splitlines()]  # type: ignore[misc]

_PATTERNS = [
    "{t}",
    "{t}",
    "{t}",
    "{t} for {j}s",
    "the history of {t}",
    "{a} {t}",
    "{t} in {c}",
    "how to learn {t}",
    "{t} and {u}",
    "introduction to {t}",
    "{n}",
    "the {x} of {n}",
    "{n} {t}",
    "{a} {x}",
    "{a} {h}",
    "{h} and {k}",
    "how to paint a {h}",
    "the {x} and the {h}",
]
_PATTERNS_ZH = [
    "{t}",
    "{t}",
    "{t}",
    "{t}的历史",
    "{t}入门",
    "{t}与{u}",
    "如何学习{t}",
    "{j}的{t}",
    "{n}",
    "{n}的{t}",
    "{n}{x}",
    "{h}和{k}",
    "{c}的{x}",
]


def topic(draw: Draw, language: Language) -> str:
    """Of this split: one in eight is held out."""
    zh = language == "zh"
    while True:
        known = TOPICS_ZH if zh else TOPICS
        text = draw.one(_PATTERNS_ZH if zh else _PATTERNS).format(
            t=draw.one(known),
            u=draw.one(known),
            j=draw.one(words.ZH_JOBS if zh else words.JOBS),
            a=draw.one(words.ADJECTIVES),
            c=draw.one(words.ZH_CITIES if zh else words.CITIES),
            n=words.made_up_zh(draw) if zh else words.made_up(draw),
            x=draw.one(words.ZH_NOUNS if zh else words.NOUNS),
            h=draw.one(words.ZH_THINGS + words.ZH_ANIMALS if zh else words.THINGS + words.ANIMALS),
            k=draw.one(words.ZH_FOODS if zh else words.FOODS),
        )
        if draw.chance(0.3):
            text = text[0].upper() + text[1:]
        if draw.chance(0.08):
            text = text.title()
        if draw.allows(text.lower()):
            return text


def defined(draw: Draw, language: Language) -> tuple[str, str]:
    """A topic of which a definition is known, and the definition as a sentence without its stop."""
    term, zh, text, zh_text = draw.one(_DEFINED)
    bare = term.split(" ", 1)[1] if term.split(" ", 1)[0] in ("a", "an", "the") else term
    return (zh, f"{zh}是{zh_text}") if language == "zh" else (bare, f"{term[0].upper()}{term[1:]} is {text}")
