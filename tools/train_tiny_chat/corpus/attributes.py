"""What can be told of a made-up thing: sentences that state it and questions that ask for it. {e} is the thing, {v} the value.

In `ENGLISH` and `CHINESE` the last question of each list is held out for the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tools.train_tiny_chat.corpus import words
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

# The same asked indirectly, for training: (clauses, noun phrases) that frames are put around.
# fmt: off
_INDIRECT: dict[str, tuple[str, str]] = {
    "height": ("(how tall {e} is|what height {e} has|how far up {e} rises)", "the (height|altitude) of {e}"),
    "founded": ("(when {e} was (founded|built|opened)|in (which|what) year {e} (opened|began)|since when {e} exists)", "(the founding year of {e}|the (date|year) when {e} (was built|opened|began))"),
    "founder": ("(who (founded|built|created|made|designed|invented) {e}|by whom {e} was (founded|made))", "(the (founder|creator|inventor) of {e}|the person who (built|created|made|designed) {e}|the one who (invented|made) {e})"),
    "where": ("(where {e} (is|stands|lies)|in which (place|city) {e} (is|lies)|where to (look for|find) {e})", "(the (location|place|city) of {e}|the place where {e} (is|stands))"),
    "count": ("(how many {n} there are in {e}|how many {n} {e} has|how many {n} belong to {e})", "(the (number|count) of {n} (in|at|of) {e}|the total of {n} in {e})"),
    "owner": ("(who owns {e}|to whom {e} belongs|whose {e} is|who has {e})", "(the owner of {e}|the person who owns {e}|the one to whom {e} belongs)"),
    "leader": ("(who (leads|runs|directs) {e}|who is (in charge|the head|the leader) of {e})", "(the (leader|head|director|boss) of {e}|the person who (runs|directs) {e})"),
    "colour": ("((what|which) (colour|color) {e} has|how {e} is painted|which colour you see at {e})", "the (colour|color|paint) of {e}"),
    "price": ("(how much {e} costs|what {e} costs|what one has to pay for {e})", "(the (price|cost) of {e}|the money that {e} costs)"),
    "opens": ("(when {e} (opens|starts)|(from when|since when) {e} is open|on which day or hour {e} opens)", "(the opening (time|day|hour) of {e}|the time when {e} opens)"),
    "made_of": ("(what {e} is made of|(which|what) material {e} is (made|built) of|what {e} consists of)", "(the material of {e}|the stuff that {e} is made of)"),
    "known_for": ("(what {e} is known for|why {e} is (famous|known)|what made {e} famous)", "(the reason why {e} is (famous|known)|the thing that {e} is known for)"),
    "what": ("(what {e} is|what is meant by {e}|what kind of thing {e} is)", "(a description|an explanation|a definition) of {e}"),
    "used_for": ("(what {e} is (used|good) for|what {e} does|what one does with {e}|why one has {e})", "the (purpose|use|function) of {e}"),
    "length": ("(what length {e} has|how far {e} (runs|goes|extends))", "(the length of {e}|the distance over which {e} runs)"),
    "default": ("(what {e} is by default|(what|which) value {e} has by default|what {e} is when nobody sets it)", "(the default of {e}|the default value of {e}|the value of {e} by default)"),
    "limit": ("(how much {e} allows|what {e} allows at most|where the limit of {e} is|how much fits into {e})", "(the (limit|maximum|upper bound) of {e}|the most that {e} allows)"),
    "command": ("(how to (start|run|launch) {e}|(which|what) command starts {e}|how {e} is started)", "(the command (for starting|to start|to run) {e}|the start command of {e})"),
    "install": ("(how to (install|get) {e}|how {e} is installed|which command installs {e})", "(the command (for installing|to install) {e}|the installation command of {e})"),
    "needs": ("(what {e} (needs|requires)|what is needed for {e}|what one must have for {e})", "(the (requirements|needs) of {e}|the things that {e} needs)"),
    "language": ("((which|what) language {e} uses|in (which|what) language {e} is|what language people speak at {e})", "the language of {e}"),
    "happened": ("(what happened to {e}|what changed {e}|why {e} (was closed|changed|became famous))", "the event that (changed|closed|destroyed) {e}"),
    "author": ("(who wrote {e}|who the (author|writer) of {e} is|by whom {e} was written)", "(the (author|writer) of {e}|the person behind the text of {e})"),
    "melts": ("(when {e} melts|how hot {e} must get to melt|at how many degrees {e} turns soft)", "(the melting point of {e}|the temperature at which {e} melts)"),
    "lives": ("(in which (place|region) {e} lives|where one (meets|sees) {e}|in what part of the world {e} lives)", "(the habitat of {e}|the place where {e} lives)"),
    "weight": ("(what {e} weighs|how much {e} weighs|what weight {e} has)", "(the weight of {e}|the mass of {e})"),
    "lasts": ("(how long {e} takes|how much time {e} takes|when {e} is over|how long {e} goes on)", "(the duration of {e}|the time that {e} takes)"),
    "port": ("((which|what) port {e} uses|on which port {e} (is|listens)|where {e} listens)", "the (port|port number) of {e}"),
    "speed": ("(what speed {e} has|how quickly {e} moves)", "the speed of {e}"),
    "capital": ("(which (city|town) is the capital of {e}|what the capital of {e} is|from where {e} is ruled)", "(the capital of {e}|the capital city of {e})"),
}
_CLAUSE_FRAMES = [
    "(Tell me|I want to know|I need to know|I am wondering|Find out|Explain|Say|Look up|Write down|Somebody asked me|It would help to know|Help me find out|It is not clear to me) {c}.",
    "(Can you say|Could you tell me|Do the sources say|Does anybody know|Have you an idea|Can you find out|Is it written|May I ask|Is there something about) {c}?",
]
_NOUN_FRAMES = [
    "(Name|Give me|I need|State|Please give|I am looking for|I am interested in|Look up|Find|Tell me|My question is about|I ask for) {c}.",
    "(What is|What do the sources say about|Can you name|What can you tell me about|Is something said about|And|What about) {c}?",
]
_INDIRECT_ZH: dict[str, tuple[str, str]] = {
    "height": ("({e}多高|{e}有几米高|{e}的高度是几米)", "{e}的(高度|高)"),
    "founded": ("({e}是哪年(建|开|成立)的|{e}什么时候建成|{e}从哪年开始)", "{e}的(建成时间|成立时间|创立年份)"),
    "founder": ("(是谁(创办|设计|建立)了{e}|{e}是谁建的|{e}由哪个人创办)", "{e}的(创始人|创办者|设计者)"),
    "where": ("({e}在哪儿|{e}在哪个地方|去哪里找{e})", "{e}的(位置|地点|所在地)"),
    "count": ("({e}里有多少{n}|{e}的{n}一共多少)", "{e}的{n}(数量|总数|数目)"),
    "owner": ("(谁是{e}的主人|{e}归谁|{e}是谁的)", "{e}的(主人|拥有者|所有者)"),
    "leader": ("(谁在(领导|管理|负责){e}|{e}的领导是谁|{e}由哪个人负责)", "{e}的(负责人|领导|领导者|管理者)"),
    "colour": ("({e}是哪种颜色|{e}涂的是什么颜色|{e}有什么颜色)", "{e}的颜色"),
    "price": ("({e}卖多少钱|要花多少钱买{e}|{e}要多少元)", "{e}的(价格|价钱|售价)"),
    "opens": ("({e}几点开始|{e}从几点起开放|{e}什么时候可以进)", "{e}的(开门时间|开放时间|开始时间)"),
    "made_of": ("({e}用什么材料做|什么材料做成了{e}|{e}是什么做的)", "{e}的(材料|材质)"),
    "known_for": ("({e}凭什么出名|人们为什么知道{e}|{e}因什么闻名)", "{e}(出名|闻名|有名)的原因"),
    "used_for": ("({e}可以做什么|人们用{e}做什么|{e}有哪些用处)", "{e}的(用途|用处)"),
    "default": ("({e}默认是什么|没有设置时{e}是什么|{e}的默认是多少)", "{e}的(默认值|默认设置)"),
    "command": ("(怎样运行{e}|运行什么来启动{e}|{e}怎么启动)", "(启动{e}的命令|{e}的启动命令)"),
    "limit": ("({e}最多能有多少|{e}不能超过多少|{e}允许多少)", "{e}的(上限|最大值|限制)"),
    "what": ("({e}究竟是什么|{e}指的是什么|{e}是个什么)", "{e}的(说明|介绍|解释)"),
    "length": ("({e}多长|{e}有几米长|{e}长几米)", "{e}的(长度|长)"),
    "author": ("({e}出自谁手|哪位作者写了{e}|写{e}的是哪个人)", "{e}的(作者|写作者)"),
    "weight": ("({e}多重|{e}有几公斤|{e}重几公斤)", "{e}的(重量|分量)"),
    "lasts": ("({e}持续多久|{e}要花多少时间|{e}什么时候结束)", "{e}的(时长|持续时间)"),
    "install": ("({e}该怎么安装|装{e}要运行什么|用哪个命令装{e})", "(安装{e}的(命令|方法)|{e}的安装命令)"),
    "lives": ("({e}住在哪儿|哪里能看到{e}|{e}生活在什么地方)", "{e}的(栖息地|生活地区)"),
    "port": ("({e}监听的是哪个端口|{e}的端口号是多少|{e}在哪个端口)", "{e}的(端口|端口号)"),
}
_CLAUSE_FRAMES_ZH = ["(告诉我|我想了解|查一下|帮我找一下|说说|我要知道|有人问我|不清楚|请写出){c}。", "(请问|想问|能告诉我|来源里说|谁知道|可以查到|有没有写){c}？"]
_NOUN_FRAMES_ZH = ["(请给出|我要|查一下|我想了解|告诉我|帮我找|写出|请找出){c}。", "(|请问|那么|来源里){c}(是什么|呢|是多少|)？"]
# fmt: on


# Questions for each attribute that only the evaluation asks; the second of each was written after all the others.
_HELD_OUT = {
    "height": "(I would like to know how high {e} is.|What's the total height of {e}?)",
    "founded": "(Is the year known in which {e} was founded?|What is the year of the founding of {e}?)",
    "founder": "(What do the sources say, who was it that founded {e}?|Who came up with {e}?)",
    "where": "(Could you say where one finds {e}?|Whereabouts is {e}?)",
    "count": "(Do you know the number of {n} that {e} has?|What's the total of {n} for {e}?)",
    "owner": "(Whom does {e} belong to, who is its owner?|Who does {e} belong to?)",
    "leader": "(Name the one who leads {e}.|Who heads {e}?)",
    "colour": "(Do you know what colour {e} is?|What's the color of {e}?)",
    "price": "(I want to know the price one pays for {e}.|What do I have to pay for {e}?)",
    "opens": "(Please say at what time {e} will open.|From what time can people go to {e}?)",
    "made_of": "(From which material did they make {e}?|What did they use to build {e}?)",
    "known_for": "(I wonder what {e} is so famous for.|Why is {e} so well known?)",
    "what": "(So what exactly is {e}?|Can you define {e}?)",
    "used_for": "(Please explain what people use {e} for.|What would somebody do with {e}?)",
    "length": "(I would like to know how long {e} is.|What's the total length of {e}?)",
    "default": "(Which default does {e} have?|If I leave {e} out, what value does it get?)",
    "limit": "(Is there a limit for {e}?|What's the most I can have with {e}?)",
    "command": "(Show me the command that will start {e}.|Which command gets {e} going?)",
    "install": "(I want to install {e}, what do I do?|What must I type so that {e} gets installed?)",
    "needs": "(Say what is required for {e}.|What are the prerequisites of {e}?)",
    "language": "(In {e}, which language do they use?|What language does {e} use?)",
    "happened": "(Did anything happen to {e}?|What took place at {e}?)",
    "author": "(Name the one who wrote {e}.|Who is {e} by?)",
    "melts": "(I would like to know at what temperature {e} melts.|What temperature makes {e} melt?)",
    "lives": "(Do you know where {e} lives?|Where in the world does {e} live?)",
    "weight": "(I would like to know how heavy {e} is.|What's the total weight of {e}?)",
    "lasts": "(Is it known how long {e} lasts?|How many minutes or days does {e} last?)",
    "port": "(I need the port that {e} listens on.|Which port number belongs to {e}?)",
    "speed": "(I would like to know how fast {e} is.|How quickly can {e} go?)",
    "capital": "(Which place is capital of {e}?|Which city serves as the capital of {e}?)",
}
_HELD_OUT_ZH = {
    "height": "(我想知道{e}有多高。|{e}的高度有多少？)",
    "founded": "({e}成立的年份是哪一年？|{e}是从哪一年开始有的？)",
    "founder": "(是谁把{e}创办起来的？|创办{e}的是哪位？)",
    "where": "(能说说{e}位于哪里吗？|怎么找到{e}，在哪里？)",
    "count": "(说一下{e}有多少{n}。|{e}的{n}总共有多少？)",
    "owner": "({e}现在属于哪个人？|{e}是哪个人的？)",
    "leader": "(负责管理{e}的人是谁？|现在谁负责{e}？)",
    "colour": "(你知道{e}的颜色吗？|{e}看上去是什么颜色？)",
    "price": "(想买{e}，价格是多少？|买一个{e}要多少钱？)",
    "opens": "(请问{e}早上几点开门？|{e}从什么时间开始开放？)",
    "made_of": "(做{e}用的材料是什么？|制作{e}用了什么？)",
    "known_for": "(大家知道{e}是因为什么？|{e}最出名的是什么？)",
    "used_for": "(说明一下{e}的作用。|我可以拿{e}来做什么？)",
    "default": "(说出{e}的默认值。|{e}如果不写，会是什么值？)",
    "command": "(我要启动{e}，命令是什么？|想让{e}运行起来，输入什么命令？)",
    "limit": "({e}有没有上限，是多少？|{e}最多可以到多少？)",
    "what": "(请说明{e}到底是什么。|{e}是一种什么？)",
    "length": "(我想知道{e}有多长。|{e}总共有多长？)",
    "author": "(你知道{e}是谁写的吗？|{e}的作者叫什么？)",
    "weight": "(我想知道{e}有多重。|{e}总共有多重？)",
    "lasts": "(我想知道{e}要多长时间。|{e}一共要多久？)",
    "install": "(我想安装{e}，该输入什么？|装{e}的命令怎么写？)",
    "lives": "(你知道{e}生活在哪里吗？|在什么地方生活着{e}？)",
    "port": "(我需要知道{e}的端口。|连接{e}要用哪个端口？)",
}


def _all_questions(attribute: Attribute, clause: str, noun: str, frames: tuple[Sequence[str], Sequence[str]], held_out: str) -> Attribute:
    composed = [frame.replace("{c}", asked) for asked, framing in zip((clause, noun), frames, strict=True) for frame in framing]
    return attribute._replace(questions=[*attribute.questions, *composed, held_out])


ENGLISH = {
    kind: _all_questions(attribute, *_INDIRECT[kind], (_CLAUSE_FRAMES, _NOUN_FRAMES), _HELD_OUT[kind])
    for kind, attribute in _ENGLISH.items()
}
CHINESE = {
    kind: _all_questions(attribute, *_INDIRECT_ZH[kind], (_CLAUSE_FRAMES_ZH, _NOUN_FRAMES_ZH), _HELD_OUT_ZH[kind])
    for kind, attribute in _CHINESE.items()
}
