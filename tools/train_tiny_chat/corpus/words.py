"""Word lists and makers of names, numbers and phrases, in English and Chinese."""

from __future__ import annotations

from tools.train_tiny_chat.corpus.draw import Draw

_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gl gr kl kr pl pr sk sl st th tr ch sh qu v y".split()
_NUCLEI = "a e i o u a e i o ai ea ou ee ia io".split()
_CODAS = ["", "", "", "", "n", "r", "l", "s", "m", "x", "th", "nd", "rk", "ck", "st", "d", "t"]
_ZH_NAME = (
    "安白北边昌长城春东恩方飞风福高光广海汉和河红华江金景静开康兰乐雷丽林灵龙罗洛马梅美明木南宁平奇青清泉仁瑞山石水松泰天田铁庭文西溪夏仙新星雪"
    "雅阳叶银永雨玉云泽竹卓子紫博达尔伦莱维卡特"
)
_ZH_SURNAME = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧"

FIRST_NAMES = (
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Noah Olivia Paul Rosa Sam Tina Victor Wendy Zoe Amir Bruno Chloe Diego "
    "Elena Farid Gina Hugo Ines Jonas Karim Lina Marta Nadia Omar Priya Quinn Rafael Sofia Tom Ursula Vera Walter Yara Lucas Mia Ethan Nora"
).split()
ZH_FIRST_NAMES = (
    "小明 小红 小华 小丽 小刚 李雷 韩梅梅 王芳 张伟 刘洋 陈静 杨帆 赵磊 黄蕾 周杰 吴敏 小林 阿强 晓东 丽娜 建国 志远 思思 雨桐 子涵".split()
)
COLOURS = "red blue green yellow black white orange purple brown grey pink silver".split()
ZH_COLOURS = "红色 蓝色 绿色 黄色 黑色 白色 橙色 紫色 棕色 灰色 粉色 银色".split()
ANIMALS = "cat dog horse rabbit parrot fish turtle cow sheep goat fox owl frog mouse bear wolf duck hamster pony lizard".split()
ZH_ANIMALS = "猫 狗 马 兔子 鹦鹉 鱼 乌龟 牛 羊 狐狸 猫头鹰 青蛙 老鼠 熊 狼 鸭子 仓鼠 蜥蜴".split()
FOODS = "apple bread cheese soup rice pasta salad cake honey tea coffee pizza banana potato tomato carrot mushroom chocolate noodles pears".split()
ZH_FOODS = "苹果 面包 奶酪 汤 米饭 面条 沙拉 蛋糕 蜂蜜 茶 咖啡 披萨 香蕉 土豆 番茄 胡萝卜 蘑菇 巧克力 饺子 梨".split()
THINGS = (
    "book lamp chair bicycle camera clock bag piano guitar hat key map phone radio ring rope shoe table tent umbrella wallet window boat kite "
    "drum brush candle basket mirror bottle hammer ladder pillow spoon"
).split()
ZH_THINGS = "书 灯 椅子 自行车 相机 钟 包 钢琴 吉他 帽子 钥匙 地图 电话 收音机 戒指 绳子 鞋 桌子 帐篷 雨伞 钱包 窗户 船 风筝".split()
CITIES = (
    "Paris London Berlin Madrid Rome Vienna Lisbon Oslo Prague Tokyo Beijing Shanghai Delhi Cairo Nairobi Lima Toronto Sydney Boston Chicago "
    "Seoul Athens Dublin Helsinki Warsaw Budapest Istanbul Jakarta Manila Bogota"
).split()
ZH_CITIES = "北京 上海 广州 深圳 成都 杭州 南京 武汉 西安 重庆 天津 苏州 巴黎 伦敦 东京 柏林 罗马 纽约 悉尼 首尔".split()
ADJECTIVES = (
    "old new small large quiet bright simple modern ancient basic practical digital natural careful deep early free good great happy hidden "
    "honest local long open personal public quick safe secret short slow small social strong useful warm wild young green blue red golden"
).split()
NOUNS = (
    "river mountain garden bridge market school harbour forest village tower library museum station castle island valley factory theatre hospital "
    "lake road farm desert temple park square mill lighthouse airport tunnel"
).split()
ZH_NOUNS = "河 山 花园 大桥 市场 学校 港口 森林 村庄 塔 图书馆 博物馆 车站 城堡 岛 山谷 工厂 剧院 医院 湖 公路 农场 寺庙 公园 广场".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ZH_DAYS = "星期一 星期二 星期三 星期四 星期五 星期六 星期日".split()
JOBS = "teacher doctor engineer painter farmer baker pilot nurse writer cook driver singer lawyer gardener carpenter scientist".split()
ZH_JOBS = "老师 医生 工程师 画家 农民 面包师 飞行员 护士 作家 厨师 司机 歌手 律师 园丁 木匠 科学家".split()


def syllables(draw: Draw, count: int) -> str:
    return "".join(draw.one(_ONSETS) + draw.one(_NUCLEI) + draw.one(_CODAS) for _ in range(count))


def made_up(draw: Draw) -> str:
    """A made-up name of this split, capitalised: Zorlath, Keanost Vim."""
    while True:
        name = syllables(draw, draw.one([1, 2, 2, 2, 3])).capitalize()
        if len(name) < 4:
            continue
        if draw.chance(0.2):
            name += " " + syllables(draw, draw.one([1, 2])).capitalize()
        if draw.allows(name):
            return name


def made_up_zh(draw: Draw) -> str:
    """A made-up Chinese name of this split, of two or three characters."""
    while True:
        name = "".join(draw.some(_ZH_NAME, draw.one([2, 2, 3])))
        if draw.allows(name):
            return name


def person(draw: Draw) -> str:
    return draw.one(FIRST_NAMES) if draw.chance(0.4) else f"{draw.one(FIRST_NAMES) if draw.chance(0.5) else made_up(draw)} {made_up(draw)}"


def person_zh(draw: Draw) -> str:
    return draw.one(_ZH_SURNAME) + "".join(draw.some(_ZH_NAME, draw.one([1, 2])))


def code(draw: Draw) -> str:
    """An identifier such as `max_trolin`, `KX-418`, `brun.toma`."""
    kind = draw.number(0, 3)
    if kind == 0:
        return f"{syllables(draw, 2)}_{syllables(draw, draw.one([1, 2]))}"
    if kind == 1:
        return "".join(draw.some("ABCDEFGHKLMNPRSTVXZ", 2)) + f"-{draw.number(10, 9999)}"
    if kind == 2:
        return f"{syllables(draw, 2)}.{syllables(draw, 1)}"
    return f"{syllables(draw, 2)}{draw.number(2, 99)}"


def amount(draw: Draw) -> str:
    """A number as documents write it."""
    kind = draw.number(0, 5)
    if kind == 0:
        return f"{draw.number(1, 99)},{draw.number(0, 999):03d}"
    if kind == 1:
        return f"{draw.number(1, 99)}.{draw.number(1, 9)}"
    return str(draw.number(2, [12, 60, 400, 9000][draw.number(0, 3)]))
