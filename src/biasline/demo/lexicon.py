"""The world the demo speaks about: bilingual word tables, written for this project.

One English word stands for one Chinese word and back, so that "translate this word" has one right answer.
That is why some everyday words are missing: "orange" is a colour here and no fruit, "light" is the opposite
of "heavy" and no lamp.
"""

from __future__ import annotations

from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    """A table of single words, written as people write word lists."""
    return tuple(text.split())


@dataclass(frozen=True)
class Noun:
    """A thing with what the skills ask about it.

    `plural` is empty where English counts none; `colour` and `home` where people would not agree on one.
    """

    en: str
    zh: str
    category: str
    measure: str
    plural: str
    colour: str = ""
    home: str = ""


CATEGORIES: dict[str, str] = {
    "animal": "动物",
    "fruit": "水果",
    "vegetable": "蔬菜",
    "drink": "饮料",
    "clothing": "衣物",
    "vehicle": "车辆",
    "furniture": "家具",
    "tool": "工具",
    "instrument": "乐器",
    "job": "职业",
    "place": "地点",
    "nature": "自然",
}

COLOURS: dict[str, str] = {
    "red": "红色",
    "green": "绿色",
    "yellow": "黄色",
    "white": "白色",
    "black": "黑色",
    "blue": "蓝色",
    "brown": "棕色",
    "orange": "橙色",
    "purple": "紫色",
    "grey": "灰色",
    "pink": "粉色",
}

HOMES: dict[str, str] = {
    "house": "房子",
    "stable": "马棚",
    "nest": "鸟巢",
    "hive": "蜂巢",
    "river": "河",
    "sea": "海",
    "forest": "森林",
    "desert": "沙漠",
    "field": "田野",
    "cave": "山洞",
}

# category: "en zh measure colour home plural", with "-" for none; the plural only where it is not en + s.
_NOUNS: dict[str, str] = {
    "animal": """
        cat 猫 只 - house; dog 狗 条 - house; horse 马 匹 - stable; cow 牛 头 - field
        sheep 羊 只 white field sheep; pig 猪 头 pink -; duck 鸭子 只 - river; chicken 鸡 只 - -
        bird 鸟 只 - nest; fish 鱼 条 - river fish; shark 鲨鱼 条 - sea; whale 鲸鱼 头 - sea
        bee 蜜蜂 只 - hive; bear 熊 头 - cave; wolf 狼 只 grey forest wolves
        fox 狐狸 只 orange forest foxes; tiger 老虎 只 - forest; lion 狮子 头 - -
        camel 骆驼 头 brown desert; rabbit 兔子 只 - field; mouse 老鼠 只 grey field mice
        monkey 猴子 只 - forest; elephant 大象 头 grey -; frog 青蛙 只 green river; snake 蛇 条 - -
        deer 鹿 头 brown forest deer; crow 乌鸦 只 black nest; swan 天鹅 只 white river
        bat 蝙蝠 只 black cave; eagle 鹰 只 brown nest
    """,
    "fruit": """
        apple 苹果 个 red -; banana 香蕉 根 yellow -; pear 梨 个 yellow -; grape 葡萄 颗 purple -
        peach 桃子 个 pink - peaches; lemon 柠檬 个 yellow -; cherry 樱桃 颗 red - cherries
        strawberry 草莓 颗 red - strawberries; mango 芒果 个 orange - mangoes
        coconut 椰子 个 brown -
    """,
    "vegetable": """
        potato 土豆 个 brown - potatoes; tomato 西红柿 个 red - tomatoes; carrot 胡萝卜 根 orange -
        cucumber 黄瓜 根 green -; onion 洋葱 个 purple -; cabbage 白菜 棵 green -
        pumpkin 南瓜 个 orange -
    """,
    "drink": """
        milk 牛奶 杯 white - -; tea 茶 杯 - - -; coffee 咖啡 杯 brown - -; juice 果汁 杯 - - -
        water 水 杯 - - -; wine 葡萄酒 杯 - - -
    """,
    "clothing": """
        shirt 衬衫 件 - -; coat 大衣 件 - -; hat 帽子 顶 - -; skirt 裙子 条 - -
        scarf 围巾 条 - - scarves; sweater 毛衣 件 - -; jacket 夹克 件 - -
    """,
    "vehicle": """
        car 汽车 辆 - -; bus 公交车 辆 - - buses; bicycle 自行车 辆 - -; truck 卡车 辆 - -
        taxi 出租车 辆 yellow -; motorcycle 摩托车 辆 - -; ambulance 救护车 辆 white -
    """,
    "furniture": """
        table 桌子 张 - -; chair 椅子 把 - -; bed 床 张 - -; sofa 沙发 张 - -; desk 书桌 张 - -
        bookshelf 书架 个 - - bookshelves
    """,
    "tool": """
        hammer 锤子 把 - -; knife 刀 把 - - knives; axe 斧头 把 - -; saw 锯子 把 - -
        brush 刷子 把 - - brushes; broom 扫帚 把 - -; key 钥匙 把 - -
    """,
    "instrument": """
        piano 钢琴 架 - -; guitar 吉他 把 - -; violin 小提琴 把 - -; drum 鼓 面 - -
        flute 笛子 支 - -
    """,
    "job": """
        doctor 医生 位 - -; nurse 护士 位 - -; teacher 老师 位 - -; farmer 农民 位 - -
        cook 厨师 位 - -; driver 司机 位 - -; lawyer 律师 位 - -; soldier 士兵 位 - -
        singer 歌手 位 - -
    """,
    "place": """
        school 学校 所 - -; hospital 医院 家 - -; library 图书馆 座 - - libraries; shop 商店 家 - -
        bank 银行 家 - -; park 公园 座 green -; hotel 酒店 家 - -; airport 机场 座 - -
        museum 博物馆 座 - -; kitchen 厨房 间 - -; garden 花园 座 green -; office 办公室 间 - -
        bedroom 卧室 间 - -; market 市场 个 - -
    """,
    "nature": """
        tree 树 棵 green -; flower 花 朵 - -; grass 草 棵 green - -; leaf 叶子 片 green - leaves
        sun 太阳 个 - -; moon 月亮 个 - -; star 星星 颗 - -; cloud 云 朵 white -
        snow 雪 片 white - -; rose 玫瑰 朵 red -; mountain 山 座 - -; sky 天空 片 blue - skies
        stone 石头 块 grey -
    """,
}


def _read_nouns() -> tuple[Noun, ...]:
    nouns = []
    for category, text in _NOUNS.items():
        for entry in (part for line in text.strip().splitlines() for part in line.split(";")):
            en, zh, measure, colour, home, *plural = entry.split()
            form = plural[0] if plural else en + "s"
            nouns.append(
                Noun(
                    en=en,
                    zh=zh,
                    category=category,
                    measure=measure,
                    plural="" if form == "-" else form,
                    colour="" if colour == "-" else colour,
                    home="" if home == "-" else home,
                )
            )
    return tuple(nouns)


NOUNS: tuple[Noun, ...] = _read_nouns()

# English pair, Chinese pair: the first words mean the same, and so do the second.
_ANTONYMS = """
    big small 大 小; hot cold 热 冷; fast slow 快 慢; long short 长 短; high low 高 低
    new old 新 旧; hard soft 硬 软; easy difficult 容易 困难; full empty 满 空; rich poor 富 穷
    happy sad 高兴 难过; clean dirty 干净 脏; dry wet 干 湿; strong weak 强 弱; near far 近 远
    good bad 好 坏; heavy light 重 轻; safe dangerous 安全 危险; quiet noisy 安静 吵闹
    cheap expensive 便宜 昂贵; clever stupid 聪明 愚蠢; true false 真 假; day night 白天 夜晚
    up down 上 下; inside outside 里面 外面; begin end 开始 结束; buy sell 买 卖; win lose 赢 输
    come go 来 去; laugh cry 笑 哭; love hate 爱 恨; remember forget 记得 忘记; sweet bitter 甜 苦
    beautiful ugly 美丽 丑陋; left right 左 右; open close 打开 关闭
"""


def _read_antonyms() -> tuple[tuple[str, str, str, str], ...]:
    pairs = []
    for entry in (part for line in _ANTONYMS.strip().splitlines() for part in line.split(";")):
        en_a, en_b, zh_a, zh_b = entry.split()
        pairs.append((en_a, en_b, zh_a, zh_b))
    return tuple(pairs)


ANTONYMS: tuple[tuple[str, str, str, str], ...] = _read_antonyms()

# Adjectives that may be said of an animal: "The cat is big." and 猫很大。
TRAITS: dict[str, str] = {
    "big": "大",
    "small": "小",
    "fast": "快",
    "slow": "慢",
    "old": "老",
    "happy": "高兴",
    "sad": "难过",
    "clean": "干净",
    "dirty": "脏",
    "strong": "强",
    "quiet": "安静",
    "clever": "聪明",
    "dangerous": "危险",
    "beautiful": "美丽",
    "hungry": "饿",
    "tired": "累",
}

# Where an animal may be; all are places of NOUNS.
ROOMS: tuple[str, ...] = _words("""
    kitchen garden bedroom office school park market hotel library shop hospital museum
""")

# What "I like …" takes: the plural in English, the bare noun in Chinese.
LIKED: tuple[str, ...] = tuple(
    noun.en for noun in NOUNS if noun.plural and noun.category in ("animal", "fruit", "vegetable")
)

PEOPLE: dict[str, str] = {"I": "我", "You": "你", "We": "我们", "They": "他们"}


@dataclass(frozen=True)
class Deed:
    """Something done to one of several things, told in the present and in the past tense."""

    present: str
    past: str
    zh: str
    objects: tuple[str, ...]


def _of(category: str) -> tuple[str, ...]:
    return tuple(noun.en for noun in NOUNS if noun.category == category)


DEEDS: tuple[Deed, ...] = (
    Deed("eat", "ate", "吃", _of("fruit") + _of("vegetable")),
    Deed("drink", "drank", "喝", _of("drink")),
    Deed("buy", "bought", "买", _of("fruit") + _of("clothing") + _of("furniture") + _of("tool")),
    Deed("sell", "sold", "卖", _of("vegetable") + _of("clothing") + _of("vehicle")),
    Deed("see", "saw", "看见", _of("animal") + _of("nature")),
    Deed("draw", "drew", "画", _of("animal") + _of("nature")),
    Deed("find", "found", "找到", _of("tool") + _of("clothing")),
    Deed("wash", "washed", "洗", _of("clothing") + _of("vehicle") + _of("fruit")),
)

# Cycles and rows in which a word has a next one.
ORDERS_EN: tuple[tuple[str, ...], ...] = (
    _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    _words("spring summer autumn winter"),
    _words("January February March April May June July August September October November December"),
)
ORDERS_ZH: tuple[tuple[str, ...], ...] = (
    _words("星期一 星期二 星期三 星期四 星期五 星期六 星期日"),
    _words("春天 夏天 秋天 冬天"),
    _words("一月 二月 三月 四月 五月 六月 七月 八月 九月 十月 十一月 十二月"),
)
COUNTED_TO = 24

# What reviews are about, and what they say. The words are all of a review's tone; templates only carry them.
REVIEWED: tuple[tuple[str, str, str], ...] = (
    ("film", "电影", "部"),
    ("book", "书", "本"),
    ("hotel", "酒店", "家"),
    ("food", "菜", "道"),
    ("room", "房间", "个"),
    ("service", "服务", "种"),
    ("story", "故事", "个"),
    ("phone", "手机", "部"),
    ("restaurant", "餐厅", "家"),
    ("song", "歌曲", "首"),
    ("game", "游戏", "个"),
    ("breakfast", "早餐", "份"),
    ("camera", "相机", "台"),
    ("bag", "包", "个"),
    ("show", "节目", "个"),
    ("computer", "电脑", "台"),
    ("tour", "旅行", "次"),
    ("actor", "演员", "位"),
    ("screen", "屏幕", "块"),
    ("plot", "剧情", "段"),
)
GOOD_EN: tuple[str, ...] = _words("""
    good great excellent wonderful lovely amazing perfect fantastic brilliant superb nice pleasant
    charming delightful comfortable tasty fresh friendly funny interesting exciting beautiful clean
    quick useful reliable warm helpful moving clever touching enjoyable impressive outstanding
    smooth stylish honest sweet fun powerful
""")
BAD_EN: tuple[str, ...] = _words("""
    bad terrible awful horrible poor boring dull ugly dirty slow broken useless rude disappointing
    annoying weak cold noisy disgusting stale expensive silly stupid cheap dreadful painful sad
    messy smelly lazy unpleasant uncomfortable unreliable tasteless pointless tedious clumsy
    confusing empty worst
""")
GOOD_ZH: tuple[str, ...] = _words("""
    好 棒 精彩 优秀 完美 出色 舒服 好吃 好看 好听 好用 好玩 新鲜 有趣 感人 漂亮 干净 方便 实用 可靠
    温暖 热情 周到 满意 愉快 清楚 流畅 贴心 美味 动人 惊喜 划算 迷人 细致 舒适 整洁 不错 超值 用心
    可爱
""")
BAD_ZH: tuple[str, ...] = _words("""
    差 糟糕 无聊 难看 难吃 难听 难用 可怕 恶心 失望 脏 慢 吵 旧 破 冷淡 粗鲁 乏味 无趣 混乱 昂贵
    没用 差劲 麻烦 模糊 难受 生气 难闻 劣质 虚假 敷衍 枯燥 拖沓 粗糙 卡顿 简陋 尴尬 低级 幼稚 肤浅
""")
