"""What can be told of a made-up thing: sentences that state it and questions that ask for it. {e} is the thing, {v} the value.

In `ENGLISH` and `CHINESE` the last question of each list is held out for the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tools.train_tiny_chat.corpus import words
from tools.train_tiny_chat.corpus.attribute_questions import (
    CLAUSE_FRAMES,
    CLAUSE_FRAMES_ZH,
    HELD_OUT,
    HELD_OUT_ZH,
    INDIRECT,
    INDIRECT_ZH,
    NOUN_FRAMES,
    NOUN_FRAMES_ZH,
)
from tools.train_tiny_chat.corpus.draw import Draw


class Attribute(NamedTuple):
    value: Callable[[Draw], str]
    statements: Sequence[str]
    questions: Sequence[str]


def _year(draw: Draw) -> str:
    return str(draw.number(1402, 2024))


def _place(draw: Draw) -> str:
    return draw.one(words.CITIES) if draw.chance(0.2) else words.made_up(draw)


def _kind(draw: Draw) -> str:
    return f"{draw.one(words.ADJECTIVES)} {draw.one(words.NOUNS)}"


def _command(draw: Draw) -> str:
    return (
        f"`{words.syllables(draw, 1)} {words.syllables(draw, draw.one([1, 2]))}{draw.one(['', ' --' + words.syllables(draw, 1), ' now'])}`"
    )


def _purpose(draw: Draw) -> str:
    verb = draw.one(
        "count stop sort clean measure save print check move paint sell repair store protect warm hide send open limit log split join".split()
    )
    return f"{verb} {draw.one(words.ADJECTIVES)} {draw.one(words.THINGS + words.ANIMALS + words.FOODS)}s"


# fmt: off
_ENGLISH: dict[str, Attribute] = {
    "height": Attribute(
        lambda d: f"{words.amount(d)} {d.one(['metres', 'feet', 'm'])}",
        ["{e} is {v} high", "The height of {e} is {v}", "{e} rises to {v}", "At {v}, {e} is the highest of its kind"],
        ["(How high|How tall) is {e}?", "What (is|was) the height of {e}?", "(Tell me|Give me) the height of {e}.", "{e} height", "To what height does {e} rise?"],
    ),
    "founded": Attribute(
        _year,
        ["{e} was founded in {v}", "In {v}, {e} was established", "{e} has existed since {v}", "{e} was (built|opened) in {v}", "It was in {v} that {e} was founded"],
        [
            "When was {e} (founded|established|built|opened)?",
            "In (what|which) year was {e} (founded|built|opened)?",
            "(Since when does|How long does) {e} exist?",
            "{e} founding year",
            "What year did {e} begin?",
            "(Please|) tell me when {e} was founded.",
        ],
    ),
    "founder": Attribute(
        words.person,
        ["{e} was founded by {v}", "{v} founded {e}", "The founder of {e} is {v}", "{e} was (built|created|designed) by {v}", "{v} (made|invented|created) {e}"],
        [
            "Who (founded|built|created|made|designed|invented) {e}?",
            "(By whom was|Who was the founder of) {e}?",
            "What is the name of the (founder|creator) of {e}?",
            "{e} (founder|creator)",
            "(Do you know|Can you tell me) who (founded|created|made) {e}?",
            "{e}: who is behind it?",
        ],
    ),
    "where": Attribute(
        _place,
        ["{e} is in {v}", "{e} lies near {v}", "{e} is located in {v}", "You find {e} in {v}", "The home of {e} is {v}", "{e} stands in the middle of {v}"],
        ["Where is {e}?", "Where (can I find|do I find|does one find) {e}?", "(In which city|In what place) is {e}?", "What is the location of {e}?", "{e} location", "Where does {e} (lie|stand)?", "Which place is {e} in?"],
    ),
    "count": Attribute(
        lambda d: f"{words.amount(d)} {d.one('people members pupils rooms books workers visitors houses trees shops beds seats boats'.split())}",
        ["{e} has {v}", "There are {v} in {e}", "{e} counts {v}", "About {v} belong to {e}", "{e} holds {v}"],
        ["How (many|large): what is the number of {n} in {e}?", "How many {n} (does {e} have|are there in {e}|has {e})?", "{e} how many {n}", "What is the number of {n} of {e}?", "(Tell me|) how many {n} {e} has.", "What count of {n} does {e} report?"],
    ),
    "owner": Attribute(
        words.person,
        ["{e} belongs to {v}", "The owner of {e} is {v}", "{v} owns {e}", "{e} is the property of {v}"],
        ["Who owns {e}?", "(Who is the owner of|To whom belongs) {e}?", "Whose is {e}?", "{e} owner", "Which person has {e} as property?"],
    ),
    "leader": Attribute(
        words.person,
        ["{e} is led by {v}", "{v} leads {e}", "The (head|director|leader) of {e} is {v}", "{v} has been in charge of {e} for years"],
        ["Who leads {e}?", "Who is the (head|director|leader|boss) of {e}?", "Who (is in charge of|runs) {e}?", "{e} (director|head)", "Under whose direction is {e}?"],
    ),
    "colour": Attribute(
        lambda d: d.one(words.COLOURS),
        ["{e} is painted {v}", "The colour of {e} is {v}", "{e} is {v}", "{e} shines in {v}"],
        ["What colour (is|has) {e}?", "Which color is {e}?", "What is the colour of {e}?", "{e} colour", "In what colour is {e} painted?"],
    ),
    "price": Attribute(
        lambda d: f"{words.amount(d)} {d.one(['euros', 'dollars', 'pounds', 'coins', 'yuan'])}",
        ["{e} costs {v}", "The price of {e} is {v}", "You pay {v} for {e}", "A ticket for {e} costs {v}"],
        ["How much (is|does) {e} (cost|)?", "What (is the price of|does one pay for) {e}?", "What does {e} cost?", "{e} price", "How expensive is {e}?"],
    ),
    "opens": Attribute(
        lambda d: f"{d.one(words.DAYS)}" if d.chance(0.4) else f"{d.number(5, 11)}:{d.one(['00', '15', '30', '45'])}",
        ["{e} opens at {v}", "{e} is open from {v}", "The doors of {e} open at {v}", "{e} starts at {v}"],
        ["When does {e} (open|start)?", "At what time does {e} open?", "(From when is|Since what time is) {e} open?", "{e} opening time", "When can I (visit|enter) {e}?", "When do the doors of {e} open?"],
    ),
    "made_of": Attribute(
        lambda d: d.one("wood stone glass iron copper paper clay silk wool brick marble steel silver leather plastic".split()),
        ["{e} is made of {v}", "{e} consists of {v}", "{v} is what {e} is made of", "The material of {e} is {v}"],
        ["What is {e} made of?", "(Which|What) material is {e} (made|built) (of|from)?", "What does {e} consist of?", "{e} material", "Of what stuff is {e}?"],
    ),
    "known_for": Attribute(
        lambda d: f"its {_kind(d)}" if d.chance(0.5) else f"{d.one(words.ADJECTIVES)} {d.one(words.FOODS)}",
        ["{e} is known for {v}", "{e} is famous for {v}", "People know {e} for {v}", "{v} made {e} famous"],
        ["What is {e} (known|famous) for?", "(Why|For what) is {e} (famous|known)?", "What do people know {e} for?", "{e} famous for", "What made {e} (famous|well known)?", "For what reason do people know {e}?"],
    ),
    "what": Attribute(
        lambda d: f"a {_kind(d)}" + (f" in {_place(d)}" if d.chance(0.3) else f" that {d.one(['helps to', 'is used to', 'was built to'])} {_purpose(d)}" if d.chance(0.5) else ""),
        ["{e} is {v}", "{e} is {v}", "{e}, as its name says, is {v}"],
        ["What is {e}?", "What('s| is) {e}(, please|)?", "(Explain|Describe) {e}.", "Tell me (about|what) {e}(| is).", "{e}?", "(Do you know|Can you tell me) what {e} is?", "What kind of thing is {e}?"],
    ),
    "used_for": Attribute(
        _purpose,
        ["{e} is used to {v}", "People use {e} to {v}", "{e} helps to {v}", "The purpose of {e} is to {v}", "{e} serves to {v}", "With {e} you can {v}"],
        ["What is {e} (used for|for|good for)?", "What does {e} do?", "What (is the purpose of|can I do with) {e}?", "Why (do people use|would I use) {e}?", "{e} (purpose|use)", "What (is|are) {e} there for?", "How can {e} help me?"],
    ),
    "length": Attribute(
        lambda d: f"{words.amount(d)} {d.one(['kilometres', 'metres', 'miles', 'cm'])}",
        ["{e} is {v} long", "The length of {e} is {v}", "{e} runs for {v}", "{e} extends over {v}"],
        ["How long is {e}?", "What (is|was) the length of {e}?", "(Tell me|Give me) the length of {e}.", "{e} length", "Over what distance does {e} extend?"],
    ),
    "default": Attribute(
        lambda d: d.one([words.amount(d), "true", "false", "none", f"`{words.code(d)}`"]),
        ["The default of {e} is {v}", "{e} is {v} by default", "By default, {e} is {v}", "If {e} is not given, it is {v}", "{e} (default: {v})"],
        ["What is the default (value |)of {e}?", "(Which|What) value has {e} by default?", "What is {e} if (I do not set it|it is not given)?", "{e} default", "Default (value |)of {e}?", "What does {e} fall back to?"],
    ),
    "limit": Attribute(
        lambda d: f"{words.amount(d)} {d.one('seconds bytes items requests pages users files tokens'.split())}",
        ["{e} allows at most {v}", "The limit of {e} is {v}", "{e} is limited to {v}", "No more than {v} fit into {e}"],
        ["What is the (limit|maximum) of {e}?", "How much (is allowed by|fits into) {e}?", "What does {e} allow at most?", "{e} limit", "How far can I go with {e}?"],
    ),
    "command": Attribute(
        _command,
        ["To start {e}, run {v}", "{e} is started with {v}", "Run {v} to start {e}", "The command {v} starts {e}"],
        ["How (do I|can I|does one|to) (start|run|launch) {e}?", "(Which|What) command starts {e}?", "What do I (type|run) to start {e}?", "start {e}", "With what is {e} started?"],
    ),
    "install": Attribute(
        _command,
        ["To install {e}, type {v}", "Install {e} with {v}", "{e} is installed with {v}", "You get {e} with {v}"],
        ["How (do I|can I|to) (install|get) {e}?", "(Which|What) command installs {e}?", "What do I type to install {e}?", "install {e}", "How is {e} installed?"],
    ),
    "needs": Attribute(
        lambda d: f"{d.one(['Python', 'at least', 'about', 'version'])} {d.number(2, 30)}{d.one([' GB of memory', '.1', ' hours', ' litres of water', ' kilograms of sand'])}",
        ["{e} needs {v}", "{e} requires {v}", "For {e} you need {v}", "Without {v}, {e} does not work"],
        ["What does {e} (need|require)?", "What do I need for {e}?", "(Which|What) are the requirements of {e}?", "{e} requirements", "What must I have to use {e}?"],
    ),
    "language": Attribute(
        lambda d: d.one(["English", "French", "Latin", "Spanish", "Arabic", "Hindi", "Greek", words.made_up(d)]),
        ["{e} is written in {v}", "The language of {e} is {v}", "In {e} people speak {v}"],
        ["(Which|What) language (is used in|has) {e}?", "What is the language of {e}?", "In which language is {e}?", "{e} language", "What tongue is used for {e}?"],
    ),
    "happened": Attribute(
        lambda d: d.one(["a storm", "a fire", "a flood", "a great feast", "a long strike", "an earthquake", "a war", "a concert"]) + f" in {_year(d)}",
        ["{e} was changed by {v}", "{e} was closed after {v}", "{v} destroyed a part of {e}", "{e} became famous through {v}"],
        ["What happened to {e}?", "(Why|After what) was {e} (closed|changed|destroyed)?", "What (event|thing) changed {e}?", "{e} event", "What occurred at {e}?"],
    ),
    "author": Attribute(
        words.person,
        ["{e} was written by {v}", "{v} wrote {e}", "{e} is a work by {v}", "{v} is the writer of {e}", "{e} comes from the pen of {v}"],
        ["Who wrote {e}?", "Who is the (author|writer) of {e}?", "(By whom was {e} written|Whose work is {e})?", "{e} author", "Which (writer|author) made {e}?"],
    ),
    "melts": Attribute(
        lambda d: f"{words.amount(d)} degrees",
        ["{e} melts at {v}", "{e} turns soft at {v}", "Heated to {v}, {e} melts", "The melting point of {e} is {v}"],
        ["At (what|which) temperature does {e} melt?", "What is the melting point of {e}?", "When does {e} melt?", "{e} melting point", "How hot must {e} be to melt?"],
    ),
    "lives": Attribute(
        lambda d: f"{d.one(['the', 'the cold', 'the warm', 'the far'])} {d.one(['north', 'south', 'east', 'west', 'mountains', 'sea', 'woods', 'desert'])}" if d.chance(0.5) else _place(d),
        ["{e} lives in {v}", "{e} is found in {v}", "You meet {e} in {v}", "{e} has its home in {v}"],
        ["Where does {e} live?", "In which (place|region|part of the world) does {e} live?", "Where (is|can one meet) {e}?", "{e} habitat", "What region does {e} live in?"],
    ),
    "weight": Attribute(
        lambda d: f"{words.amount(d)} {d.one(['grams', 'kilograms', 'tons', 'pounds'])}",
        ["{e} weighs {v}", "{e} is {v} heavy", "The weight of {e} is {v}", "With {v}, {e} is rather heavy"],
        ["How (heavy is|much does) {e}( weigh|)?", "What (is the weight of|does) {e}( weigh|)?", "What does {e} weigh?", "{e} weight", "(Tell me|Give me) the weight of {e}."],
    ),
    "lasts": Attribute(
        lambda d: f"{d.one(['', 'about ', 'at most ', 'more than '])}{d.number(2, 90)} {d.one(['seconds', 'minutes', 'hours', 'days', 'years'])}",
        ["{e} lasts {v}", "{e} takes {v}", "{e} is over after {v}", "{e} goes on for {v}"],
        ["How long does {e} (last|take|go on)?", "How (much time|many minutes) does {e} take?", "After what time is {e} over?", "{e} duration", "What is the duration of {e}?"],
    ),
    "port": Attribute(
        lambda d: str(d.number(80, 65000)),
        ["{e} listens on port {v}", "{e} uses the port {v}", "The port of {e} is {v}", "You reach {e} at port {v}"],
        ["(Which|What) port does {e} (use|listen on|have)?", "What is the port of {e}?", "On (which|what) port (is|do I reach) {e}?", "{e} port", "Where does {e} listen?"],
    ),
    "speed": Attribute(
        lambda d: f"{words.amount(d)} {d.one(['kilometres an hour', 'metres a second', 'tokens per second', 'miles an hour'])}",
        ["{e} moves at {v}", "{e} reaches {v}", "The speed of {e} is {v}", "{e} is as fast as {v}"],
        ["How fast (is|does) {e}( move| go|)?", "What (is the speed of|speed has) {e}?", "What speed does {e} reach?", "{e} speed", "(Tell me|Give me) the speed of {e}."],
    ),
    "capital": Attribute(
        _place,
        ["The capital of {e} is {v}", "{v} is the capital of {e}", "{e} is ruled from {v}", "{e} has its capital in {v}"],
        ["What is the capital of {e}?", "Which (city|town) is the capital of {e}?", "{e} capital", "From (where|which city) is {e} ruled?", "Tell me the capital of {e}."],
    ),
}

_CHINESE: dict[str, Attribute] = {
    "height": Attribute(lambda d: f"{words.amount(d)}米", ["{e}高{v}", "{e}的高度是{v}", "{e}有{v}高"], ["{e}有多高？", "{e}的高度是多少？", "请告诉我{e}的高度。", "{e}多高", "{e}高多少？"]),
    "founded": Attribute(
        lambda d: f"{_year(d)}年", ["{e}成立于{v}", "{v}，{e}建成", "{e}建于{v}", "{e}在{v}开放"], ["{e}是(什么时候|哪一年)(成立|建成|开放)的？", "{e}建于哪一年？", "{e}的成立时间是什么？", "{e}成立于何时？", "{e}始于哪年？"]
    ),
    "founder": Attribute(
        words.person_zh, ["{e}由{v}创办", "{e}的创始人是{v}", "{v}创建了{e}", "{v}设计了{e}"], ["(谁创办了|谁创建了|谁设计了){e}？", "{e}的创始人是谁？", "{e}是谁(创办|创建|设计)的？", "{e}由谁建立？", "你知道{e}是谁创建的吗？"]
    ),
    "where": Attribute(
        lambda d: d.one(words.ZH_CITIES) if d.chance(0.3) else words.made_up_zh(d),
        ["{e}位于{v}", "{e}在{v}", "{e}坐落在{v}附近"],
        ["{e}在哪里？", "{e}位于(哪里|什么地方)？", "请问{e}在什么地方？", "{e}的位置是哪里？", "在哪儿能找到{e}？"],
    ),
    "count": Attribute(
        lambda d: f"{words.amount(d)}{d.one('名员工 名学生 间房间 本书 位居民 棵树 家商店 个座位'.split())}", ["{e}有{v}", "{e}共有{v}", "{e}一共有{v}"], ["{e}有多少{n}？", "{e}的{n}有多少？", "请问{e}有多少{n}？", "{e}一共多少{n}？", "{n}在{e}有多少？"]
    ),
    "owner": Attribute(words.person_zh, ["{e}属于{v}", "{e}的主人是{v}", "{v}拥有{e}"], ["{e}属于谁？", "谁拥有{e}？", "{e}的主人是谁？", "{e}归谁所有？"]),
    "leader": Attribute(words.person_zh, ["{e}由{v}领导", "{e}的负责人是{v}", "{v}管理{e}"], ["谁(领导|管理){e}？", "{e}的负责人是谁？", "{e}由谁(领导|管理|负责)？", "{e}归谁管？"]),
    "colour": Attribute(lambda d: d.one(words.ZH_COLOURS), ["{e}是{v}的", "{e}的颜色是{v}", "{e}被涂成{v}"], ["{e}是什么颜色的？", "{e}的颜色是什么？", "{e}什么颜色？", "请问{e}涂成了什么颜色？"]),
    "price": Attribute(lambda d: f"{words.amount(d)}元", ["{e}的价格是{v}", "{e}要{v}", "买{e}需要{v}"], ["{e}(多少钱|要多少钱)？", "{e}的价格是多少？", "买{e}要花多少钱？", "{e}价格", "{e}贵不贵，要多少钱？"]),
    "opens": Attribute(
        lambda d: f"{d.number(5, 11)}点{d.one(['', '半'])}", ["{e}{v}开门", "{e}从{v}开始", "{e}在{v}开放"], ["{e}(几点|什么时候)(开门|开放|开始)？", "{e}的开放时间是几点？", "{e}几点开？", "我什么时候可以去{e}？"]
    ),
    "made_of": Attribute(
        lambda d: d.one("木头 石头 玻璃 铁 铜 纸 丝绸 羊毛 砖 钢 银 皮革".split()), ["{e}由{v}制成", "{e}是用{v}做的", "{e}的材料是{v}"], ["{e}是用什么做的？", "{e}由什么制成？", "{e}的材料是什么？", "{e}用的是哪种材料？"]
    ),
    "known_for": Attribute(
        lambda d: d.one(words.ZH_FOODS + words.ZH_NOUNS + words.ZH_ANIMALS), ["{e}以{v}闻名", "{e}因{v}而出名", "人们因为{v}知道{e}"], ["{e}以什么闻名？", "{e}因为什么出名？", "{e}有什么出名的？", "{e}为什么有名？"]
    ),
    "used_for": Attribute(
        lambda d: d.one("测量 清洗 保存 修理 检查 记录 保护 整理 限制 计算 加热 运送".split()) + d.one(words.ZH_THINGS + words.ZH_FOODS),
        ["{e}用来{v}", "{e}可以{v}", "{e}的作用是{v}", "人们用{e}来{v}"],
        ["{e}(有什么用|是做什么用的)？", "{e}的作用是什么？", "{e}能做什么？", "{e}用来干什么？", "为什么要用{e}？"],
    ),
    "default": Attribute(lambda d: d.one([words.amount(d), "true", "false", "`" + words.code(d) + "`"]), ["{e}的默认值是{v}", "{e}默认为{v}", "如果没有设置，{e}就是{v}"], ["{e}的默认值是(什么|多少)？", "{e}默认是多少？", "不设置{e}时它是多少？", "{e}默认为何？"]),
    "command": Attribute(_command, ["运行{v}来启动{e}", "用{v}启动{e}", "启动{e}的命令是{v}"], ["(怎么|如何|怎样)启动{e}？", "启动{e}的命令是什么？", "用什么命令启动{e}？", "要启动{e}应该输入什么？"]),
    "limit": Attribute(lambda d: f"{words.amount(d)}{d.one('秒 字节 个请求 页 个用户 个文件'.split())}", ["{e}最多允许{v}", "{e}的上限是{v}", "{e}不能超过{v}"], ["{e}的上限是多少？", "{e}最多允许多少？", "{e}最多是多少？", "{e}的最大值是多少？"]),
    "what": Attribute(
        lambda d: f"一个{d.one(['古老', '现代', '安静', '小型', '大型', '著名'])}的{d.one(words.ZH_NOUNS)}", ["{e}是{v}", "{e}是{v}"], ["{e}是什么？", "什么是{e}？", "(请|)介绍一下{e}。", "{e}是什么东西？", "你知道{e}是什么吗？"]
    ),
    "length": Attribute(lambda d: f"{words.amount(d)}{d.one(['米', '公里', '厘米'])}", ["{e}长{v}", "{e}的长度是{v}", "{e}有{v}长"], ["{e}有多长？", "{e}的长度是多少？", "{e}长多少？", "请告诉我{e}的长度。", "{e}长度"]),
    "author": Attribute(words.person_zh, ["{e}由{v}所写", "{e}是{v}写的", "{v}写了{e}"], ["谁写了{e}？", "{e}是谁写的？", "{e}的作者是谁？", "{e}作者", "写{e}的人是谁？"]),
    "weight": Attribute(lambda d: f"{words.amount(d)}{d.one(['克', '公斤', '吨'])}", ["{e}重{v}", "{e}的重量是{v}", "{e}有{v}重"], ["{e}有多重？", "{e}的重量是多少？", "{e}重多少？", "{e}重量", "请告诉我{e}的重量。"]),
    "lasts": Attribute(lambda d: f"{d.number(2, 90)}{d.one(['秒', '分钟', '小时', '天', '年'])}", ["{e}持续{v}", "{e}需要{v}", "{e}在{v}后结束"], ["{e}要多久？", "{e}持续多长时间？", "{e}多久结束？", "{e}需要多少时间？", "{e}时长"]),
    "install": Attribute(_command, ["安装{e}请运行{v}", "{e}用{v}来安装", "输入{v}就装好了{e}"], ["(怎么|如何|怎样)安装{e}？", "安装{e}的命令是什么？", "用什么命令安装{e}？", "{e}安装", "{e}要怎么装？"]),
    "lives": Attribute(lambda d: f"{d.one(['北方', '南方', '山区', '海边', '沙漠', '草原'])}" if d.chance(0.5) else words.made_up_zh(d), ["{e}生活在{v}", "{e}住在{v}", "在{v}可以见到{e}"], ["{e}生活在哪里？", "{e}住在什么地方？", "在哪里可以见到{e}？", "{e}的家在哪里？", "{e}栖息地"]),
    "port": Attribute(lambda d: str(d.number(80, 65000)), ["{e}监听端口{v}", "{e}的端口是{v}", "{e}使用{v}端口"], ["{e}用哪个端口？", "{e}的端口是多少？", "{e}监听哪个端口？", "{e}端口", "请告诉我{e}的端口。"]),
}
# fmt: on


def _all_questions(attribute: Attribute, clause: str, noun: str, frames: tuple[Sequence[str], Sequence[str]], held_out: str) -> Attribute:
    composed = [frame.replace("{c}", asked) for asked, framing in zip((clause, noun), frames, strict=True) for frame in framing]
    return attribute._replace(questions=[*attribute.questions, *composed, held_out])


ENGLISH = {
    kind: _all_questions(attribute, *INDIRECT[kind], (CLAUSE_FRAMES, NOUN_FRAMES), HELD_OUT[kind]) for kind, attribute in _ENGLISH.items()
}
CHINESE = {
    kind: _all_questions(attribute, *INDIRECT_ZH[kind], (CLAUSE_FRAMES_ZH, NOUN_FRAMES_ZH), HELD_OUT_ZH[kind])
    for kind, attribute in _CHINESE.items()
}
