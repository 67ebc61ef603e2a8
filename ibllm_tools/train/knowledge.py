"""What the pocket language model can say about the concepts: plain facts in two languages.

The facts are written for this project. A concept that is not in the table (another pack)
gets neutral sentences, so that the recipe still runs. This file does not know tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ibllm_tools.train.data import Concept


@dataclass(frozen=True)
class Fact:
    """What is said about one concept, in English and Chinese.

    Attributes:
        name: English name. `phrase` is the name with its article.
        name_zh: Chinese name.
        kind: English category; `kind_zh` the Chinese one.
        place: Where it is found, ready for "You can find it ...".
        does: A full sentence about its sound or its use.
        scene: A verb phrase for "... could be happening".
        synonyms: Other English words that name the same concept.
    """

    name: str
    phrase: str
    name_zh: str
    kind: str
    kind_zh: str
    place: str
    place_zh: str
    does: str
    does_zh: str
    scene: str
    scene_zh: str
    synonyms: tuple[str, ...] = field(default=())


KINDS = {
    "animal": "动物",
    "human": "人类",
    "vehicle": "交通工具",
    "device": "设备",
    "furniture": "家具",
    "household object": "家居用品",
    "musical instrument": "乐器",
    "part of nature": "自然现象",
    "plant": "植物",
    "building": "建筑",
}

# name | phrase | kind | place | place zh | does | does zh | scene | scene zh | synonyms
_TABLE = """
dog|a dog|animal|at home or in a park|家里或公园里|A dog barks.|狗会汪汪叫。|is running and barking|正在边跑边叫|puppy,poodle,dalmatian,chihuahua,retriever,shepherd,terrier
cat|a cat|animal|at home or in a garden|家里或花园里|A cat meows and purrs.|猫会喵喵叫。|is asking for food|正在要吃的|kitten,tabby
bird|a bird|animal|in the air or in a garden|天空中或花园里|A bird sings and chirps.|鸟会唱歌。|is singing|正在唱歌|stork,goose,penguin,albatross,ibis,flamingo,pigeon,seagull,crow
frog|a frog|animal|near a pond|池塘边|A frog croaks.|青蛙会呱呱叫。|is croaking by the water|正在水边呱呱叫|bullfrog,toad
cow|a cow|animal|on a farm|农场里|A cow moos.|牛会哞哞叫。|is eating grass|正在吃草|ox,bull,cattle
sheep|a sheep|animal|on a hill or a farm|山坡或农场上|A sheep bleats.|羊会咩咩叫。|is walking on a hill|正在山坡上走|bighorn,lamb,ram
pig|a pig|animal|on a farm|农场里|A pig oinks and grunts.|猪会哼哼叫。|is looking for food|正在找吃的|hog,boar
chicken|a chicken|animal|on a farm|农场里|A chicken clucks and crows.|鸡会咯咯叫。|is crowing on a farm|正在农场里打鸣|rooster,hen
horse|a horse|animal|in a stable or on a field|马厩或草地上|A horse neighs.|马会嘶叫。|is running over a field|正在草地上奔跑|pony
lion|a lion|animal|on the savanna or in a zoo|草原上或动物园里|A lion roars.|狮子会吼叫。|is roaring|正在吼叫|
monkey|a monkey|animal|in the jungle or in a zoo|丛林里或动物园里|A monkey screams and chatters.|猴子会吱吱叫。|is climbing and shouting|正在边爬边叫|chimpanzee,orangutan,baboon,gorilla,ape
insect|an insect|animal|on a flower or in the grass|花上或草丛里|An insect buzzes or chirps.|昆虫会嗡嗡叫。|is buzzing around|正在嗡嗡飞|dragonfly,butterfly,bee,cockroach,ladybug,fly,mantis,grasshopper,beetle,ant,cicada,cricket,bug
fish|a fish|animal|in the water|水里|A fish makes no sound. It swims.|鱼不出声，它会游泳。|is swimming|正在游泳|goldfish,trout
person|a person|human|in a town or at home|城里或家里|A person talks and laughs.|人会说话和笑。|is talking|正在说话|man,woman,boy,girl,people,face
baby|a baby|human|at home in a cot|家里的摇篮里|A baby cries and laughs.|婴儿会哭会笑。|is crying|正在哭|infant
car|a car|vehicle|on the road|马路上|A car hums, and it carries people.|汽车会轰鸣，用来载人。|is driving past|正在开过|automobile,taxi,convertible,limousine
bus|a bus|vehicle|at a stop in town|城里的车站|A bus rumbles, and it carries many people.|公交车会轰鸣，用来载很多人。|is stopping for people|正在停车上客|trolleybus
truck|a truck|vehicle|on the highway|公路上|A truck rumbles, and it carries heavy loads.|卡车会轰鸣，用来运货。|is carrying a heavy load|正在运重货|van,lorry,pickup
train|a train|vehicle|at a station or on rails|车站或铁轨上|A train rattles and whistles.|火车会隆隆响。|is arriving at a station|正在进站|locomotive,tram
motorcycle|a motorcycle|vehicle|on the road|马路上|A motorcycle roars, and it carries one or two riders.|摩托车会轰响，用来骑行。|is speeding along the road|正在路上飞驰|motorbike,moped
bicycle|a bicycle|vehicle|on a bike path|自行车道上|A bicycle rings its bell, and it is used for riding.|自行车会响铃，用来骑行。|is rolling down the path|正在小路上骑行|bike
airplane|an airplane|vehicle|at an airport or in the sky|机场或天空中|An airplane roars, and it flies people far away.|飞机会轰鸣，用来飞行。|is flying in the sky|正在天上飞|plane,aeroplane,jet
helicopter|a helicopter|vehicle|in the sky or on a landing pad|天空中或停机坪上|A helicopter makes a loud chopping sound, and it flies.|直升机会突突响，用来飞行。|is hovering in the sky|正在空中盘旋|
boat|a boat|vehicle|on the water or in a harbour|水面或港口|A boat splashes, and it carries people over water.|船会哗哗响，用来渡水。|is sailing on the water|正在水上航行|ship,ferry,gondola,lifeboat,schooner,canoe
clock|a clock|device|on a wall|墙上|A clock ticks, and it shows the time.|时钟会滴答响，用来看时间。|is ticking|正在滴答走|watch,stopwatch
keyboard|a keyboard|device|on a desk in an office|办公桌上|A keyboard clicks, and it is used for typing.|键盘会咔嗒响，用来打字。|is being typed on|正在被敲打|
telephone|a telephone|device|in an office or in a pocket|办公室或口袋里|A telephone rings, and it is used for calling.|电话会响铃，用来打电话。|is ringing|正在响铃|phone,payphone,cellphone,smartphone
computer|a computer|device|on a desk in an office|办公桌上|A computer hums, and it is used for working.|电脑会嗡嗡响，用来工作。|is running a program|正在运行程序|laptop
television|a television|device|in a living room|客厅里|A television plays shows, and it is used for watching.|电视会播放节目，用来观看。|is showing a film|正在放电影|tv
chair|a chair|furniture|in a kitchen or an office|厨房或办公室里|A chair makes no sound. It is used for sitting.|椅子不出声，用来坐。|is waiting for a guest|正等着客人来坐|
table|a table|furniture|in a dining room|餐厅里|A table makes no sound. It is used for eating and working.|桌子不出声，用来吃饭和工作。|is set for dinner|正摆好等着吃饭|desk
sofa|a sofa|furniture|in a living room|客厅里|A sofa makes no sound. It is used for resting.|沙发不出声，用来休息。|is inviting someone to rest|正等着人来休息|couch
bed|a bed|furniture|in a bedroom|卧室里|A bed makes no sound. It is used for sleeping.|床不出声，用来睡觉。|is ready for the night|正等着过夜的人|
lamp|a lamp|household object|in a living room or on a ceiling|客厅或天花板上|A lamp makes no sound. It gives light.|灯不出声，用来照明。|is lighting the room|正照亮房间|lampshade,chandelier
bottle|a bottle|household object|in a kitchen or a shop|厨房或商店里|A bottle makes no sound. It holds drinks.|瓶子不出声，用来装饮料。|is full of a cold drink|正装着冷饮|
cup|a cup|household object|in a kitchen or a cafe|厨房或咖啡馆里|A cup makes no sound. It is used for drinking.|杯子不出声，用来喝水。|is filled with hot tea|正盛着热茶|mug,espresso
guitar|a guitar|musical instrument|on a stage|舞台上|A guitar makes music with its strings.|吉他用琴弦演奏音乐。|is being played|正在被弹奏|
piano|a piano|musical instrument|in a concert hall|音乐厅里|A piano makes music with its keys.|钢琴用琴键演奏音乐。|is being played|正在被弹奏|
toilet|a toilet|household object|in a bathroom|浴室里|A toilet flushes.|马桶会冲水。|is being flushed|正在冲水|
door|a door|household object|in a wall or an entrance|墙上或入口处|A door creaks and knocks, and it lets people in.|门会吱呀响，用来进出。|is opening slowly|正在慢慢打开|
fire|fire|part of nature|in a fireplace or a forest|壁炉或森林里|Fire crackles, and it gives heat.|火会噼啪响，带来热量。|is burning and crackling|正在噼啪燃烧|flame,campfire
rain|rain|part of nature|outside under grey clouds|乌云下的室外|Rain patters on the roof.|雨会淅沥沥地下。|is falling|正在下|
sea|the sea|part of nature|at the beach|海滩边|The sea roars with its waves.|海会哗哗作响。|is rolling onto the beach|正在拍打海滩|seashore,ocean,waves
tree|a tree|plant|in a forest or a park|森林或公园里|A tree rustles in the wind.|树会在风中沙沙响。|is moving in the wind|正在风中摇动|willow,maple,pine,palm,oak
house|a house|building|in a village or a town|村庄或城镇里|A house makes no sound. It is used for living.|房子不出声，用来居住。|is standing in the village|正立在村子里|barn
"""


def _parse_table() -> dict[str, tuple[str, ...]]:
    rows = [line.split("|") for line in _TABLE.strip().splitlines()]
    return {row[0]: tuple(row[1:]) for row in rows}


def facts_for(concepts: Sequence[Concept]) -> list[Fact]:
    """Return one fact a concept, in the order of the concept list."""
    table = _parse_table()
    return [_fact(c, table.get(c.name)) for c in concepts]


def _fact(concept: Concept, row: tuple[str, ...] | None) -> Fact:
    if row is None:
        article = "an" if concept.name[:1] in "aeiou" else "a"
        phrase, zh = f"{article} {concept.name}", concept.name_zh
        does, does_zh = f"I know little about {phrase}.", f"我不太了解{zh}。"
        row = (
            *(phrase, "household object", "in many places", "很多地方"),
            *(does, does_zh, "is here", "在这里", ""),
        )
    phrase, kind, place, place_zh, does, does_zh, scene, scene_zh, synonyms = row
    return Fact(
        name=concept.name,
        phrase=phrase,
        name_zh=concept.name_zh,
        kind=kind,
        kind_zh=KINDS[kind],
        place=place,
        place_zh=place_zh,
        does=does,
        does_zh=does_zh,
        scene=scene,
        scene_zh=scene_zh,
        synonyms=tuple(s for s in synonyms.split(",") if s),
    )
