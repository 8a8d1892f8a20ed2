"""Simple facts about the world: capitals, what things are, opposites, words in the other language."""

from __future__ import annotations

from tools.train_tiny_chat.corpus.facts import Fact

_CAPITALS = """France Paris 法国 巴黎|Germany Berlin 德国 柏林|Italy Rome 意大利 罗马|Spain Madrid 西班牙 马德里|Portugal Lisbon 葡萄牙 里斯本|Austria Vienna 奥地利 维也纳
Greece Athens 希腊 雅典|Norway Oslo 挪威 奥斯陆|Sweden Stockholm 瑞典 斯德哥尔摩|Finland Helsinki 芬兰 赫尔辛基|Poland Warsaw 波兰 华沙|Ireland Dublin 爱尔兰 都柏林
China Beijing 中国 北京|Japan Tokyo 日本 东京|India Delhi 印度 新德里|Russia Moscow 俄罗斯 莫斯科|Egypt Cairo 埃及 开罗|Kenya Nairobi 肯尼亚 内罗毕
Peru Lima 秘鲁 利马|Canada Ottawa 加拿大 渥太华|Australia Canberra 澳大利亚 堪培拉|Turkey Ankara 土耳其 安卡拉|Thailand Bangkok 泰国 曼谷|Cuba Havana 古巴 哈瓦那
Hungary Budapest 匈牙利 布达佩斯|Denmark Copenhagen 丹麦 哥本哈根|Belgium Brussels 比利时 布鲁塞尔|Vietnam Hanoi 越南 河内|Iran Tehran 伊朗 德黑兰|Chile Santiago 智利 圣地亚哥
England London 英国 伦敦|Korea Seoul 韩国 首尔|Switzerland Bern 瑞士 伯尔尼|America Washington 美国 华盛顿|Brazil Brasilia 巴西 巴西利亚|Argentina Buenos_Aires 阿根廷 布宜诺斯艾利斯"""

DEFINITIONS = """photosynthesis|光合作用|the process by which plants make sugar from light, water and carbon dioxide|植物利用光、水和二氧化碳制造糖的过程
gravity|重力|the force that pulls things towards each other, such as an apple towards the earth|使物体相互吸引的力，例如苹果落向地面
a fraction|分数|a part of a whole, written as one number over another, such as 1/2|整体的一部分，写成一个数在另一个数之上，例如1/2
an atom|原子|the smallest piece of an element, with a nucleus and electrons around it|元素的最小单位，由原子核和周围的电子组成
electricity|电|the flow of charge, which brings light and power to our homes|电荷的流动，给家里带来光和动力
a volcano|火山|a mountain from which hot melted rock comes out of the earth|熔岩从地下喷出的山
the water cycle|水循环|the way of water from the sea into the air, down as rain, and back through rivers|水从海洋蒸发到空中，变成雨落下，再经河流返回的过程
a computer|计算机|a machine that follows instructions and works with data|按照指令处理数据的机器
a programming language|编程语言|a language in which people write instructions for computers|人们用来给计算机写指令的语言
Python|Python|a programming language that is easy to read and widely used|一种易读且广泛使用的编程语言
an algorithm|算法|a list of clear steps that solve a problem|解决问题的一系列明确步骤
a database|数据库|a place where data is stored so that it can be found and changed|存放数据以便查找和修改的地方
the internet|互联网|the network that connects computers all over the world|连接全世界计算机的网络
a language model|语言模型|a program that predicts the next word of a text, and can so write and answer|预测文本下一个词、因而能写作和回答的程序
machine learning|机器学习|the field in which computers learn rules from examples|让计算机从例子中学习规律的领域
a neural network|神经网络|a program of many simple units with weights that are learned from examples|由许多简单单元组成、权重从例子中学习的程序
a token|token|a piece of text, often a word or a part of one, that a language model reads and writes|语言模型读写的一小段文本，常常是一个词或词的一部分
an API|API|a way for one program to ask another for something|一个程序向另一个程序请求服务的方式
HTTP|HTTP|the protocol by which browsers and servers talk|浏览器和服务器通信的协议
JSON|JSON|a text format for data with objects, lists, texts and numbers|一种表示数据的文本格式，有对象、列表、文本和数字
Docker|Docker|a tool that runs programs in containers with all they need|把程序和所需的一切放进容器运行的工具
a GPU|GPU|a processor that does many calculations at the same time|同时进行大量计算的处理器
the sun|太阳|the star at the centre of our solar system|太阳系中心的恒星
the moon|月亮|the natural satellite of the earth|地球的天然卫星
a planet|行星|a large body that moves around a star|围绕恒星运行的大天体
the earth|地球|the planet on which we live, the third from the sun|我们居住的行星，离太阳第三近
a rainbow|彩虹|a bow of colours that appears when the sun shines on rain|阳光照在雨滴上出现的彩色弧
a triangle|三角形|a shape with three sides and three corners|有三条边和三个角的图形
a square|正方形|a shape with four equal sides and four right angles|有四条等边和四个直角的图形
a circle|圆|a round line whose points all have the same distance from the centre|所有点到中心距离相等的曲线
a verb|动词|a word for an action, such as run or write|表示动作的词，例如跑或写
a noun|名词|a word for a person, a place or a thing|表示人、地方或事物的词
an adjective|形容词|a word that describes a thing, such as big or green|描述事物的词，例如大或绿
democracy|民主|a form of government in which the people choose who governs|由人民选择谁来治理的政府形式
inflation|通货膨胀|a general rise of prices over time|物价随时间普遍上涨
a budget|预算|a plan of what is earned and what is spent|收入和支出的计划
evolution|进化|the slow change of living things from generation to generation|生物一代一代的缓慢变化
a cell|细胞|the smallest living part of a plant or an animal|植物或动物最小的有生命的部分
a vaccine|疫苗|a medicine that teaches the body to fight a disease|教会身体对抗疾病的药物
energy|能量|the ability to do work or to make heat|做功或产生热的能力
temperature|温度|a measure of how hot or cold something is|表示冷热程度的量
a vitamin|维生素|a substance in food that the body needs in small amounts|食物中身体少量需要的物质
recycling|回收利用|making new things from used material|用旧材料制造新东西
climate|气候|the usual weather of a place over many years|一个地方多年的通常天气
music|音乐|the art of sounds in time|声音在时间中的艺术
chess|国际象棋|a game for two players on a board of 64 squares|两个人在64格棋盘上玩的游戏
bread|面包|a food that is baked from flour, water and yeast|用面粉、水和酵母烤成的食物
tea|茶|a drink made from the leaves of the tea plant in hot water|用热水泡茶叶制成的饮料
an island|岛|land with water all around it|四周被水围绕的陆地
a desert|沙漠|a dry place where little rain falls|很少下雨的干燥地方
a library|图书馆|a place where books can be read and borrowed|可以阅读和借书的地方
a prime number|质数|a number above 1 that only 1 and itself divide|大于1、只能被1和自己整除的数
multiplication|乘法|adding the same number several times|把同一个数加若干次
an equation|方程|a statement that two expressions are equal|表示两个式子相等的陈述
probability|概率|a number from 0 to 1 that says how likely something is|从0到1、表示某事有多可能的数"""

_OPPOSITES = "big small 大 小|hot cold 热 冷|old new 旧 新|fast slow 快 慢|high low 高 低|open closed 开 关|light dark 亮 暗|good bad 好 坏|long short 长 短|happy sad 高兴 难过|early late 早 晚|near far 近 远|wet dry 湿 干|full empty 满 空|strong weak 强 弱|day night 白天 黑夜"
_WORDS = "water 水|fire 火|book 书|cat 猫|dog 狗|house 房子|friend 朋友|thank_you 谢谢|hello 你好|good_morning 早上好|apple 苹果|tea 茶|rice 米饭|school 学校|teacher 老师|student 学生|sun 太阳|moon 月亮|mountain 山|river 河|bread 面包|fish 鱼|bird 鸟|tree 树|car 汽车|love 爱|today 今天|tomorrow 明天|yesterday 昨天|goodbye 再见"

# fmt: off
_MISC = [
    Fact(["seven"], "A week has seven days.", ["How many days (does a week have|are in a week|has a week)?", "days in a week", "(Tell me|) how many days a week has.", "Of how many days is a week made?"], "一个星期有七天。", ["一(个星期|周)有几天？", "一个星期是几天？", "一周由几天组成？"], ["七"]),
    Fact(["twelve"], "A year has twelve months.", ["How many months (does a year have|are in a year|has a year)?", "months in a year", "(Tell me|) how many months a year has.", "Of how many months is a year made?"], "一年有十二个月。", ["一年有几个月？", "一年是多少个月？", "一年由几个月组成？"], ["十二"]),
    Fact(["365"], "A year has 365 days, a leap year 366.", ["How many days (does a year have|are in a year|has a year)?", "days in a year", "How long is a year in days?"], "一年有365天，闰年有366天。", ["一年有多少天？", "一年是几天？", "一年等于多少天？"]),
    Fact(["24"], "A day has 24 hours.", ["How many hours (does a day have|are in a day|has a day)?", "hours in a day", "How long is a day in hours?"], "一天有24小时。", ["一天有(几|多少)(个|)小时？", "一天是多少小时？", "一天等于几小时？"]),
    Fact(["60"], "An hour has 60 minutes, and a minute 60 seconds.", ["How many (minutes|seconds) (does|are in) (an hour|a minute)( have|)?", "minutes in an hour", "How long is an hour in minutes?"], "一小时有60分钟，一分钟有60秒。", ["一小时有多少分钟？", "一分钟有多少秒？", "一小时等于几分钟？"]),
    Fact(["blue"], "The sky is blue on a clear day, because air scatters blue light the most.", ["(What|Which) colour is the sky?", "Why is the sky blue?", "sky colour", "For what reason does the sky look blue?"], "晴天的天空是蓝色的，因为空气散射蓝光最多。", ["天空是什么颜色的？", "天空为什么是蓝色的？", "为什么天看起来是蓝的？"], ["蓝"]),
    Fact(["green"], "Grass is green, because its leaves hold chlorophyll.", ["(What|Which) colour is grass?", "Why (is grass|are leaves) green?", "For what reason are plants green?"], "草是绿色的，因为叶子里有叶绿素。", ["草是什么颜色的？", "草为什么是绿色的？", "植物为什么是绿的？"], ["绿"]),
    Fact(["100"], "Water boils at 100 degrees Celsius at sea level, and freezes at 0.", ["(When|At what temperature) does water (boil|freeze)?", "boiling point of water", "How hot must water be to boil?"], "在海平面，水在100摄氏度沸腾，在0度结冰。", ["水在多少度(沸腾|结冰)？", "水的沸点是多少？", "水要多热才会开？"]),
    Fact(["eight"], "Our solar system has eight planets: Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.", ["How many planets (are there|are in the solar system|does the solar system have)?", "(Which|What) planets are there?", "(Name|List) the planets.", "What are the planets of our sun?"], "太阳系有八颗行星：水星、金星、地球、火星、木星、土星、天王星和海王星。", ["太阳系有几颗行星？", "有哪些行星？", "太阳周围有哪些行星？"], ["八"]),
    Fact(["Jupiter"], "Jupiter is the largest planet of our solar system.", ["(What|Which) is the (largest|biggest) planet?", "largest planet", "Which planet is bigger than all others?"], "木星是太阳系最大的行星。", ["最大的行星是(哪个|什么)？", "哪颗行星最大？", "太阳系中谁最大？"], ["木星"]),
    Fact(["Everest"], "Mount Everest is the highest mountain on earth, about 8849 metres high.", ["(What|Which) is the (highest|tallest) mountain( on earth|)?", "highest mountain", "Which mountain is higher than all others?"], "珠穆朗玛峰是地球上最高的山，约8849米。", ["最高的山是(哪座|什么)？", "世界最高峰是什么？", "哪座山比其他山都高？"], ["珠穆朗玛"]),
    Fact(["Pacific"], "The Pacific is the largest ocean.", ["(What|Which) is the (largest|biggest) ocean?", "largest ocean", "Which ocean is bigger than all others?"], "太平洋是最大的海洋。", ["最大的海洋是(哪个|什么)？", "哪个海洋最大？", "什么洋最大？"], ["太平洋"]),
    Fact(["seven"], "There are seven continents: Africa, Antarctica, Asia, Australia, Europe, North America and South America.", ["How many continents (are there|exist)?", "(Which|What) continents are there?", "(Name|List) the continents.", "What are the continents called?"], "有七大洲：非洲、南极洲、亚洲、大洋洲、欧洲、北美洲和南美洲。", ["有几个大洲？", "有哪些大洲？", "各大洲叫什么？"], ["七"]),
    Fact(["H2O"], "Water is H2O: two atoms of hydrogen and one of oxygen.", ["(What is|What's) the (chemical |)formula of water?", "(What is|Of what is) water (made of|made)?", "What does H2O mean?", "Which atoms form water?"], "水是H2O：两个氢原子和一个氧原子。", ["水的化学式是什么？", "水由什么组成？", "H2O是什么？"]),
    Fact(["eight"], "A spider has eight legs, an insect six.", ["How many legs (does a spider|has a spider)( have|)?", "How many legs does an insect have?", "On how many legs does a spider walk?"], "蜘蛛有八条腿，昆虫有六条。", ["蜘蛛有几条腿？", "昆虫有几条腿？", "蜘蛛用几条腿走路？"], ["八"]),
    Fact(["26"], "The English alphabet has 26 letters.", ["How many letters (does the alphabet have|are in the alphabet|has the English alphabet)?", "letters of the alphabet", "Of how many letters is the alphabet made?"], "英文字母表有26个字母。", ["英文有几个字母？", "字母表有多少字母？", "英语字母一共几个？"]),
    Fact(["spring"], "The seasons are spring, summer, autumn and winter.", ["(What|Which) (are the|) seasons( are there|)?", "How many seasons are there?", "(Name|List) the seasons.", "What times of the year are there?"], "四季是春、夏、秋、冬。", ["有哪些季节？", "一年有几个季节？", "四季叫什么？"], ["春"]),
    Fact(["Monday"], "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.", ["(What|Which) are the days of the week?", "(Name|List) the days of the week.", "weekdays", "How are the seven days called?"], "一周的日子是星期一、星期二、星期三、星期四、星期五、星期六和星期日。", ["一周的日子叫什么？", "列出一周的日子。", "七天分别叫什么？"], ["星期一"]),
    Fact(["red"], "The primary colours of paint are red, yellow and blue.", ["(What|Which) are the primary colours?", "primary colours", "(Name|List) the primary colours.", "From which colours can others be mixed?"], "颜料的三原色是红、黄、蓝。", ["三原色是什么？", "有哪些原色？", "哪些颜色能调出其他颜色？"], ["红"]),
    Fact(["300,000"], "Light travels about 300,000 kilometres in a second.", ["How fast is light?", "(What is|What's) the speed of light?", "speed of light", "How far does light get in a second?"], "光每秒大约走30万公里。", ["光有多快？", "光速是多少？", "光一秒走多远？"], ["30万"]),
]
# fmt: on


def _article(term: str) -> str:
    return term.split(" ", 1)[1] if term.split(" ", 1)[0] in ("a", "an", "the") else term


def _capitals() -> list[Fact]:
    facts = []
    for row in _CAPITALS.replace("\n", "|").split("|"):
        country, capital, zh_country, zh_capital = row.replace("\n", "").split()
        capital = capital.replace("_", " ")
        facts.append(
            Fact(
                [capital],
                f"The capital of {country} is {capital}.",
                [
                    f"(What is|What's) the capital of {country}?",
                    f"(Which|What) city is the capital of {country}?",
                    f"capital of {country}",
                    f"(Tell me|Name) the capital of {country}.",
                    f"{country}'s capital?",
                    f"Do you know the capital of {country}?",
                    f"From which city is {country} governed?",
                    f"Which capital does {country} have?",
                ],
                f"{zh_country}的首都是{zh_capital}。",
                [
                    f"{zh_country}的首都是(哪里|什么|哪个城市)？",
                    f"哪个城市是{zh_country}的首都？",
                    f"{zh_country}首都",
                    f"你知道{zh_country}的首都吗？",
                    f"{zh_country}的首都叫什么？",
                    f"说出{zh_country}的首都。",
                ],
                [zh_capital],
            )
        )
    return facts


def _definitions() -> list[Fact]:
    facts = []
    for row in DEFINITIONS.splitlines():
        term, zh, text, zh_text = row.split("|")
        bare = _article(term)
        facts.append(
            Fact(
                [text],
                f"{term[0].upper()}{term[1:]} is {text}.",
                [
                    f"(What is|What's) {term}?",
                    f"(Explain|Define|Describe) {term}.",
                    f"What (does {bare} mean|do you call {bare})?",
                    f"{bare}?",
                    f"(Tell me|Say) what {term} is.",
                    f"(Can you|Could you) explain {term}( to me|)?",
                    f"Do you know what {term} is?",
                    f"What is meant by {bare}?",
                ],
                f"{zh}是{zh_text}。",
                [
                    f"{zh}是什么？",
                    f"什么是{zh}？",
                    f"(请|)解释(一下|){zh}。",
                    f"{zh}",
                    f"{zh}是什么意思？",
                    f"你知道什么是{zh}吗？",
                    f"能说说{zh}是什么吗？",
                ],
                [zh_text],
            )
        )
    return facts


def _opposites() -> list[Fact]:
    facts = []
    for row in _OPPOSITES.split("|"):
        one, other, zh_one, zh_other = row.split()
        for a, b, za, zb in ((one, other, zh_one, zh_other), (other, one, zh_other, zh_one)):
            facts.append(
                Fact(
                    [b],
                    f"The opposite of {a} is {b}.",
                    [
                        f"(What is|What's) the opposite of {a}?",
                        f"opposite of {a}",
                        f"(Tell me|Name|Give me) the opposite of {a}.",
                        f"Which word is the contrary of {a}?",
                        f"What word is the opposite of {a}?",
                    ],
                    f"“{za}”的反义词是“{zb}”。",
                    [
                        f"“{za}”的反义词是什么？",
                        f"{za}的反义词",
                        f"{za}的反面是什么？",
                        f"和“{za}”相反的词是什么？",
                        f"请说出“{za}”的反义词。",
                    ],
                    [zb],
                )
            )
    return facts


def _words() -> list[Fact]:
    facts = []
    for row in _WORDS.split("|"):
        word, zh = row.split()
        word = word.replace("_", " ")
        facts.append(
            Fact(
                [zh],
                f'"{word}" in Chinese is {zh}.',
                [
                    f"(What is|What's) {word} in Chinese?",
                    f'How do you say "{word}" in Chinese?',
                    f'Translate "{word}" (into|to) Chinese.',
                    f"{word} in Chinese",
                    f"What is the Chinese word for {word}?",
                ],
                f"“{zh}”的英文是{word}。",
                [f"“{zh}”(用|)英(文|语)怎么说？", f"{zh}的英文是什么？", f"把“{zh}”翻译成英文。", f"英语里“{zh}”叫什么？"],
                [word],
            )
        )
    return facts


GENERAL_FACTS: list[Fact] = [*_MISC, *_capitals(), *_definitions(), *_opposites(), *_words()]
