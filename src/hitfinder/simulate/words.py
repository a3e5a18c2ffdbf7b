"""What the simulated shop sells: categories with their levels, and the words that titles are made of.

All lists and levels are made up for the simulation; the orders of magnitude are argued for in `hitfinder.simulate`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ADJECTIVES", "BRANDS", "CATEGORIES", "COLOURS", "LANGUAGES", "MATERIALS", "ONE", "Category"]

LANGUAGES = ("en", "zh", "mixed")


@dataclass(frozen=True)
class Category:
    """One category and its levels.

    `nouns` and all words below are pairs, English and Chinese. `share`: of the styles. `click_rate`: clicks per
    impression of a middling SKU. `cart_rate`: carts per click. `price`: the median, in money. `return_rate`: of the
    orders. `season_amplitude`: of log demand, over the year. `season_peak`: day of the year of the highest demand.
    """

    name: str
    nouns: tuple[tuple[str, str], ...]
    sizes: tuple[str, ...]
    share: float
    click_rate: float
    cart_rate: float
    price: float
    return_rate: float
    season_amplitude: float
    season_peak: int


CLOTHES = ("S", "M", "L", "XL")
FEET = ("37", "38", "39", "40", "41")
ONE = ("one size",)
CATEGORIES = (
    Category("dresses", (("Dress", "连衣裙"), ("Midi Skirt", "半身裙"), ("Jumpsuit", "连体裤")),
             CLOTHES, 0.20, 0.023, 0.054, 29.0, 0.20, 0.35, 180),
    Category("knitwear", (("Cardigan", "开衫"), ("Sweater", "毛衣"), ("Knit Vest", "针织背心")),
             CLOTHES, 0.14, 0.021, 0.052, 30.0, 0.16, 0.40, 335),
    Category("shoes", (("Sneakers", "运动鞋"), ("Loafers", "乐福鞋"), ("Sandals", "凉鞋")),
             FEET, 0.12, 0.020, 0.048, 34.0, 0.18, 0.15, 120),
    Category("bags", (("Tote Bag", "托特包"), ("Backpack", "双肩包"), ("Crossbody Bag", "斜挎包")),
             ONE, 0.12, 0.022, 0.050, 30.0, 0.08, 0.10, 245),
    Category("kitchen", (("Lunch Box", "饭盒"), ("Mug", "马克杯"), ("Storage Jar", "密封罐")),
             ONE, 0.12, 0.017, 0.062, 20.0, 0.04, 0.10, 330),
    Category("lighting", (("Table Lamp", "台灯"), ("Night Light", "小夜灯"), ("String Lights", "串灯")),
             ONE, 0.10, 0.018, 0.054, 26.0, 0.06, 0.30, 340),
    Category("toys", (("Plush Toy", "毛绒玩具"), ("Puzzle", "拼图"), ("Building Blocks", "积木")),
             ONE, 0.10, 0.019, 0.058, 23.0, 0.05, 0.40, 345),
    Category("phone accessories", (("Phone Case", "手机壳"), ("Phone Stand", "手机支架"), ("Cable Set", "数据线套装")),
             ONE, 0.10, 0.026, 0.062, 18.0, 0.05, 0.05, 270),
)  # fmt: skip
ADJECTIVES = (
    ("Vintage", "复古"), ("Minimalist", "极简"), ("Cute", "可爱"), ("Elegant", "优雅"), ("Lightweight", "轻便"),
    ("Handmade", "手工"), ("Foldable", "可折叠"), ("Large", "大号"), ("Mini", "迷你"), ("Korean Style", "韩版"),
    ("French Style", "法式"), ("Outdoor", "户外"), ("Everyday", "日常"), ("Soft", "柔软"), ("Classic", "经典"),
    ("New", "新款"), ("Retro", "怀旧"), ("Premium", "轻奢"), ("Summer", "夏季"), ("Cosy", "温馨"),
)  # fmt: skip
MATERIALS = (
    ("Cotton", "纯棉"), ("Linen", "亚麻"), ("Canvas", "帆布"), ("Leather Look", "仿皮"), ("Wool Blend", "羊毛混纺"),
    ("Bamboo", "竹制"), ("Silicone", "硅胶"), ("Velvet", "丝绒"), ("Recycled", "环保"), ("Corduroy", "灯芯绒"),
    ("Mesh", "网面"), ("Ceramic", "陶瓷"),
)  # fmt: skip
COLOURS = (
    ("Black", "黑色"), ("White", "白色"), ("Beige", "米色"), ("Navy", "藏青"), ("Pink", "粉色"), ("Sage", "鼠尾草绿"),
    ("Caramel", "焦糖色"), ("Grey", "灰色"), ("Red", "红色"), ("Lilac", "浅紫"), ("Yellow", "黄色"), ("Teal", "青色"),
)  # fmt: skip
BRANDS = (
    ("Amberloom", "琥织"), ("Birchway", "桦途"), ("Corvelle", "珂薇"), ("Dunmere", "顿默"), ("Everpine", "永松"),
    ("Fennlight", "芬光"), ("Glasshaven", "璃港"), ("Hollowreed", "空苇"), ("Isla Mora", "岛莓"),
    ("Juniper Row", "桧行"),
)  # fmt: skip
