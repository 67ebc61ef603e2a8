"""Words and values that made-up tools are built from, divided into training and test.

A word belongs to the test if its checksum says so (one in eight); no test word ever stands in
the training rows as a tool's name, a parameter's name or a value.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


def is_held(text: str) -> bool:
    """Whether a text is kept for the test: one in eight, by checksum."""
    return zlib.crc32(text.encode()) % 8 == 0


@dataclass(frozen=True)
class World:
    """One side of the division: training words, or test words.

    Attributes:
        rng: Random source.
        test: Whether this is the side of the test.
    """

    rng: random.Random
    test: bool = False

    def pick(self, options: Sequence[str]) -> str:
        """Draw one option of this side."""
        mine = [o for o in options if is_held(o) == self.test]
        return self.rng.choice(mine or list(options))

    def make(self, maker: Callable[[random.Random], str]) -> str:
        """Draw from a maker until the text is of this side."""
        for _ in range(200):
            text = maker(self.rng)
            if is_held(text) == self.test:
                return text
        raise RuntimeError("no text of the wanted side was drawn")


@dataclass(frozen=True)
class Topic:
    """What one kind of tool does, and how people ask for it."""

    names: tuple[str, ...]
    params: tuple[str, ...]
    kind: str
    descriptions: tuple[str, ...]
    questions: tuple[str, ...]
    descriptions_zh: tuple[str, ...]
    questions_zh: tuple[str, ...]
    thing: str
    thing_zh: str


@cache
def read_topics() -> tuple[Topic, ...]:
    """Read the hand-written topics of `tool_topics.psv`."""
    text = (Path(__file__).parent / "tool_topics.psv").read_text(encoding="utf-8")
    topics = []
    for line in text.splitlines()[1:]:
        names, params, kind, told, asked, told_zh, asked_zh, thing, thing_zh = line.split("|")
        topics.append(
            Topic(
                tuple(names.split(",")), tuple(params.split(",")), kind,
                tuple(told.split(";")), tuple(asked.split(";")),
                tuple(told_zh.split(";")), tuple(asked_zh.split(";")), thing, thing_zh,
            )
        )  # fmt: skip
    return tuple(topics)


PLACES = tuple(
    "Oslo Paris London Berlin Madrid Rome Vienna Prague Warsaw Lisbon Dublin Athens Helsinki "
    "Stockholm Copenhagen Brussels Amsterdam Zurich Geneva Budapest Cairo Nairobi Lagos Accra "
    "Tokyo Osaka Kyoto Seoul Beijing Shanghai Mumbai Delhi Bangkok Hanoi Manila Jakarta Sydney "
    "Melbourne Perth Auckland Toronto Montreal Vancouver Chicago Boston Denver Seattle Dallas "
    "Houston Phoenix Miami Atlanta Lima Bogota Quito Santiago Havana Tunis Algiers Casablanca "
    "Istanbul Ankara Tehran Baghdad Dubai Doha Riyadh Karachi Lahore Kabul Moscow Kyiv Minsk "
    "Riga Vilnius Tallinn Munich Hamburg Cologne Lyon Nice Turin Milan Naples Porto Seville "
    "Glasgow Leeds York Bristol Oxford Cambridge Norway France Spain Italy Poland Egypt Kenya "
    "Japan China India Brazil Peru Chile Canada Mexico Cuba Turkey Iran Greece".split()
) + (
    "New York", "New Delhi", "Los Angeles", "Hong Kong", "Cape Town", "Buenos Aires", "Rio de Janeiro",
    "Mexico City", "Tel Aviv", "Kuala Lumpur", "Saint Petersburg", "Las Vegas", "Salt Lake City",
    "South Africa", "New Zealand", "Costa Rica", "Addis Ababa", "Santa Fe", "Abu Dhabi", "Sri Lanka",
    "Portland, Oregon", "Austin, Texas", "Nice, France", "Bath, England", "Geneva, NY", "Perth, WA",
)  # fmt: skip
PLACES_ZH = tuple(
    "北京 上海 广州 深圳 杭州 南京 成都 武汉 西安 重庆 天津 苏州 长沙 青岛 大连 厦门 昆明 哈尔滨 "
    "东京 大阪 首尔 巴黎 伦敦 柏林 罗马 纽约 悉尼 莫斯科 开罗 曼谷 法国 德国 日本 英国 意大利 "
    "西班牙 加拿大 巴西 埃及 印度 泰国 新加坡 拉萨 兰州 济南 郑州 沈阳 香港 澳门 台北".split()
)
ITEMS = tuple(
    "laptop,umbrella,backpack,toaster,camera,pencil,helmet,blanket,candle,hammer,wallet,mirror,"
    "pillow,scooter,kettle,basket,ladder,notebook,printer,monitor,tablet,headphone,speaker,lamp,"
    "chair,table,sofa,bed,bottle,cup,guitar,piano,drum,violin,bicycle,motorcycle,boat,clock,"
    "keyboard,telephone,television,door,shirt,jacket,shoe,glove,scarf,hat,watch,ring,necklace,"
    "ball,kite,puzzle,doll,robot,drone,tent,rope,knife,spoon,fork,plate,bowl,pan,oven,fridge,"
    "red bicycle,green lamp,wooden chair,blue cup,leather wallet,old piano,steel bottle,"
    "silver ring,wool scarf,garden table,desk lamp,water bottle,toy train,winter jacket".split(",")
)
ITEMS_ZH = tuple(
    "电脑 雨伞 背包 相机 铅笔 头盔 毯子 蜡烛 锤子 钱包 镜子 枕头 水壶 篮子 梯子 笔记本 打印机 "
    "平板 耳机 音箱 台灯 椅子 桌子 沙发 床 瓶子 杯子 吉他 钢琴 小提琴 自行车 时钟 键盘 电话 电视 "
    "衬衫 夹克 手套 围巾 帽子 手表 戒指 风筝 玩具 帐篷 绳子 勺子 盘子 烤箱 冰箱".split()
)
FOODS = tuple(
    "rice,noodles,pancakes,lasagna,pizza,curry,soup,salad,dumplings,sushi,tacos,bread,cheese,"
    "chocolate cake,apple pie,fried eggs,roast beef,fish soup,potato salad,tomato sauce,"
    "omelette,risotto,goulash,porridge,stew,pudding,cookies,waffles,yoghurt,honey".split(",")
)
FOODS_ZH = tuple("米饭 面条 饺子 包子 红烧肉 麻婆豆腐 蛋糕 披萨 沙拉 番茄炒蛋 鱼汤 春卷 豆浆 火锅".split())
FIRST_NAMES = tuple(
    "Anna Tom Maria John Peter Laura Simon Julia Felix Emma Oscar Nina Paul Clara Max Lena David "
    "Sara Jonas Alice Bob Carol Frank Grace Henry Irene Jack Karen Leo Mona Nora Otto Priya Quinn "
    "Rosa Sven Tina Umar Vera Wendy Xavier Yusuf Zoe Chen Hiro Yuki Amir Fatima Olga Ivan".split()
)
LAST_NAMES = tuple(
    "Smith Miller Brown Garcia Lopez Weber Schmidt Rossi Novak Kim Tanaka Singh Khan Silva Costa "
    "Jensen Larsen Moreau Petrov Okafor Mensah Wong Nguyen Walker Hill Baker Cook Stone Rivers".split()
)
NAMES_ZH = tuple("小明 小红 王伟 李娜 张强 刘洋 陈静 杨帆 赵磊 黄丽 周杰 吴敏 徐刚 孙悦 老张 李老师".split())
_HAN = (
    "天地人山水火木金土日月星云风雨雪花草树林鸟鱼马牛羊大小多少上下左右东西南北中国家学校书"
    "文字语音乐美好新老长高明白红黄蓝绿黑光电车船飞机路桥门窗房屋店公司集团科技银行医院海江河湖"
    "春夏秋冬早晚年时分今明昨爱心手足头目口耳力气米茶酒饭菜果瓜衣布纸笔画石铁铜玉珠"
)
_HIRAGANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをんがぎぐげごだでどばびぶべぼ"
_KATAKANA = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワンガギグゴザジズゼダデドバビブベボパピプペポー"
_OPENINGS = "b bl br c ch cl d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sn st str t th tr v w z".split()
_VOWELS = "a e i o u ai ea ee ia io oo ou y".split()
_ENDINGS = ["", "", "", *"b d ck l ll m n nd ng nt p r rk s ss st t th x".split()]
PLAIN_WORDS = tuple(
    "apple river stone paper green silver garden window summer winter bridge castle forest ocean "
    "mountain valley kitchen market school teacher doctor farmer sailor painter writer dancer "
    "letter number circle square triangle engine wheel rocket planet comet desert island harbour "
    "village tower palace museum theatre station airport factory office cabinet drawer carpet "
    "curtain ceiling cotton leather metal copper marble crystal shadow mirror thunder lightning "
    "breeze meadow orchard pepper ginger cinnamon butter sugar coffee lemon cherry banana melon "
    "carrot onion rabbit tiger panda eagle dolphin spider beetle turtle lizard camel donkey goose "
    "quick slow bright dark heavy light clever gentle brave quiet loud happy sad early late round "
    "flat deep high low warm cold sweet sour fresh empty full simple secret magic royal public "
    "annual daily local global final first second third last next report budget invoice contract "
    "meeting project schedule survey summary policy license payment refund discount coupon ticket "
    "signal sensor battery cable socket server folder backup archive record profile member client "
    "guest visitor patient student worker driver pilot guard lawyer judge mayor captain king queen".split()
)


def pseudo_word(rng: random.Random) -> str:
    """A word that does not exist: one to three syllables."""
    syllables = rng.choice((1, 1, 2, 2, 3))
    return "".join(
        rng.choice(_OPENINGS) + rng.choice(_VOWELS) + rng.choice(_ENDINGS) for _ in range(syllables)
    )


def any_word(rng: random.Random) -> str:
    """A real word or one that does not exist."""
    return rng.choice(PLAIN_WORDS) if rng.random() < 0.6 else pseudo_word(rng)


def integer(world: World) -> int:
    """A whole number of one to six digits; sometimes negative."""

    def draw(rng: random.Random) -> str:
        digits = rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
        value = rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
        return str(-value if rng.random() < 0.08 else value)

    return int(world.make(draw))


def latin_span(world: World) -> str:
    """One to six words in some casing, perhaps with digits or punctuation."""

    def draw(rng: random.Random) -> str:
        words = [any_word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 5)))]
        style = rng.random()
        if style < 0.35:
            words = [w.capitalize() for w in words]
        elif style < 0.42:
            words = [w.upper() for w in words]
        elif style < 0.5:
            words[0] = words[0].capitalize()
        text = " ".join(words)
        if rng.random() < 0.15:
            text += rng.choice((" 7", " 42", "-3", " 2000", "!", "?", " & Co", ".txt", ", Inc"))
        return text

    return world.make(draw)


def han_span(world: World) -> str:
    """Two to eight Chinese characters."""
    return world.make(lambda rng: "".join(rng.choices(_HAN, k=rng.choice((2, 3, 4, 4, 5, 6, 8)))))


def kana_span(world: World) -> str:
    """Three to eight kana, perhaps with Chinese characters after them."""

    def draw(rng: random.Random) -> str:
        text = "".join(rng.choices(rng.choice((_HIRAGANA, _KATAKANA)), k=rng.randint(3, 8)))
        return text + ("".join(rng.choices(_HAN, k=2)) if rng.random() < 0.25 else "")

    return world.make(draw)


def quoted_span(world: World) -> tuple[str, str]:
    """A span to copy and its script: latin, han or kana."""
    script = world.rng.choice(("latin", "latin", "han", "kana"))
    makers = {"latin": latin_span, "han": han_span, "kana": kana_span}
    return makers[script](world), script


def place(world: World, *, chinese: bool) -> str:
    """A place that exists or might."""
    if chinese:
        return world.pick(PLACES_ZH) if world.rng.random() < 0.7 else han_span(world)[:3]
    if world.rng.random() < 0.55:
        return world.pick(PLACES)
    return world.make(lambda rng: " ".join(pseudo_word(rng).capitalize() for _ in range(rng.choice((1, 1, 2)))))


def person(world: World, *, chinese: bool) -> str:
    """A person's name."""
    if chinese:
        return world.pick(NAMES_ZH)

    def draw(rng: random.Random) -> str:
        first = rng.choice(FIRST_NAMES) if rng.random() < 0.7 else pseudo_word(rng).capitalize()
        last = rng.choice(LAST_NAMES) if rng.random() < 0.6 else pseudo_word(rng).capitalize()
        return first if rng.random() < 0.4 else f"{first} {last}"

    return world.make(draw)


def item(world: World, *, chinese: bool, food: bool = False) -> str:
    """An object or a dish."""
    if chinese:
        return world.pick(FOODS_ZH if food else ITEMS_ZH)
    if world.rng.random() < 0.65:
        return world.pick(FOODS if food else ITEMS)
    return world.make(lambda rng: f"{any_word(rng)} {pseudo_word(rng)}" if rng.random() < 0.4 else any_word(rng))


FILE_ENDINGS = {
    "image": ("jpg", "png", "jpeg", "webp"),
    "audio": ("wav", "mp3", "ogg", "flac"),
    "video": ("mp4", "mov", "avi"),
    "shape": ("ply", "obj", "npy"),
    "depth": ("png", "npy"),
}


def attachment(world: World, kind: str) -> tuple[str, str]:
    """An attachment's id and how the user's text shows it."""
    rng = world.rng
    name = f"{kind}-{rng.choice((1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))}"
    if rng.random() < 0.15:
        return name, f"[{name}]"
    stem = world.make(any_word)
    if rng.random() < 0.4:
        stem += rng.choice(("_1", "2", "-a", "_final", "03", "_2024", " copy"))
    return name, f"[{name}: {stem}.{rng.choice(FILE_ENDINGS[kind])}]"
