"""Generated conversations about the concepts: questions and answers in English and Chinese.

Every function takes a random source and returns plain text, so that any number of rows can
be drawn and the same seed draws the same rows. This file does not know tensors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ibllm_tools.train.knowledge import KINDS, Fact

Turn = tuple[str, str]
"""One question and its answer."""


@dataclass(frozen=True)
class Scene:
    """What the media of one row show: one fact, two mixed facts, or nothing known.

    Attributes:
        facts: One or two facts; empty where the media show nothing that is known.
        blind: The row has no media at all.
    """

    facts: tuple[Fact, ...]
    blind: bool = False


WHAT = (
    ("What is this?", "This is {a}."),
    ("What is this?", "It is {a}."),
    ("What is it?", "It is {a}."),
    ("What do you see?", "I see {a}."),
    ("What can you see?", "I see {a}."),
    ("What is in the picture?", "The picture shows {a}."),
    ("What is in this photo?", "The photo shows {a}."),
    ("What is in the image?", "The image shows {a}."),
    ("What does the image show?", "The image shows {a}."),
    ("Describe the image.", "The image shows {a}."),
    ("Describe this.", "This is {a}."),
    ("What do you hear?", "I hear {a}."),
    ("What can you hear?", "I hear {a}."),
    ("What is making this sound?", "It is {a}."),
    ("What sound is this?", "This sounds like {a}."),
    ("What is this shape?", "This is the shape of {a}."),
    ("What shape is this?", "This is the shape of {a}."),
    ("What is this object?", "This object is {a}."),
    ("What is in the video?", "The video shows {a}."),
    ("What does the video show?", "The video shows {a}."),
    ("What is shown in the depth map?", "The depth map shows {a}."),
    ("Name the thing.", "It is {a}."),
    ("Tell me what this is.", "This is {a}."),
    ("Can you tell me what this is?", "This is {a}."),
    ("What am I looking at?", "You are looking at {a}."),
    ("What am I hearing?", "You are hearing {a}."),
)
WHAT_ZH = (
    ("这是什么？", "这是{z}。"),
    ("它是什么？", "它是{z}。"),
    ("你看到了什么？", "我看到了{z}。"),
    ("图片里有什么？", "图片里有{z}。"),
    ("照片里是什么？", "照片里是{z}。"),
    ("请描述这张图片。", "图片里有{z}。"),
    ("你听到了什么？", "我听到了{z}。"),
    ("这是什么声音？", "这是{z}的声音。"),
    ("这是什么形状？", "这是{z}的形状。"),
    ("视频里有什么？", "视频里有{z}。"),
    ("请告诉我这是什么。", "这是{z}。"),
)
UNKNOWN = (
    "I am not sure what this is.",
    "I do not know what this is.",
    "I am not sure. I cannot tell what this is.",
)
UNKNOWN_ZH = ("我不确定这是什么。", "我不知道这是什么。")
NOTHING = (
    "I do not see or hear anything. Please show me something.",
    "There is nothing attached. Please give me a picture, a sound or a shape.",
)
NOTHING_ZH = (
    "我没有看到或听到任何东西，请给我一张图片或一段声音。",
    "这里没有附件，请给我看点什么。",
)
HAPPENING = (
    "What could be happening?",
    "What is happening?",
    "What might be going on here?",
    "What is going on?",
)
HAPPENING_ZH = ("可能发生了什么？", "正在发生什么？", "这里可能在发生什么？")
COUNT = ("How many {n}s are there?", "How many {n}s do you see?", "Can you count the {n}s?")
REFERENCES = (
    ("And what sound does it make?", "does"),
    ("What sound does it make?", "does"),
    ("What does it do?", "does"),
    ("What is it used for?", "does"),
    ("Where can you find it?", "place"),
    ("And where would you find it?", "place"),
    ("What kind of thing is it?", "kind"),
    ("Tell me a short story about it.", "story"),
    ("Write a short poem about it.", "poem"),
    ("What is that in Chinese?", "chinese"),
)
REFERENCES_ZH = (
    ("它会发出什么声音？", "does"),
    ("它有什么用？", "does"),
    ("在哪里可以找到它？", "place"),
    ("它属于哪一类？", "kind"),
    ("讲一个关于它的小故事。", "story"),
    ("写一首关于它的小诗。", "poem"),
    ("它用英语怎么说？", "english"),
)
SMALL_TALK = (
    ("Hello!", "Hello! Show me a picture, a sound or a shape."),
    ("Hi", "Hi! How can I help you?"),
    ("Who are you?", "I am Pocket, a very small model that can see, hear and feel shapes."),
    ("What is your name?", "My name is Pocket."),
    ("What can you do?", "I can name everyday things in pictures, sounds and 3D shapes."),
    ("Thank you!", "You are welcome."),
    ("Thanks.", "You are welcome."),
    ("How are you?", "I am fine, thank you."),
    ("Goodbye.", "Goodbye!"),
    ("Are you a person?", "No, I am a small language model."),
    ("你好！", "你好！请给我看图片、声音或形状。"),
    ("你是谁？", "我是 Pocket，一个能看能听的小模型。"),
    ("你叫什么名字？", "我叫 Pocket。"),
    ("你能做什么？", "我能说出图片、声音和三维形状里的日常事物。"),
    ("谢谢！", "不客气。"),
    ("再见。", "再见！"),
)


def what_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask what the media show."""
    question, answer = rng.choice(WHAT_ZH if chinese else WHAT)
    if not scene.facts:
        return question, _no_answer(rng, scene, chinese)
    return question, answer.format(a=join_phrases(scene.facts), z=join_names_zh(scene.facts))


def happening_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask what could be going on."""
    question = rng.choice(HAPPENING_ZH if chinese else HAPPENING)
    if not scene.facts:
        return question, _no_answer(rng, scene, chinese)
    if chinese:
        parts = [f"{f.name_zh}可能{f.scene_zh}" for f in scene.facts]
        return question, "，".join(parts) + "。"
    first, *rest = scene.facts
    answer = f"{_upper(first.phrase)} {first.scene}"
    if rest:
        answer += f", and {rest[0].phrase} {rest[0].scene}"
    return question, answer + "."


def exists_turn(rng: random.Random, scene: Scene, facts: Sequence[Fact], chinese: bool) -> Turn:
    """Ask a balanced yes/no question about one thing."""
    present = bool(scene.facts) and rng.random() < 0.5
    others = [f for f in facts if f not in scene.facts]
    asked = rng.choice(scene.facts if present else others)
    if chinese:
        question = rng.choice(("这里有{n}吗？", "图片里有{n}吗？", "这是{n}吗？")).format(
            n=asked.name_zh
        )
        if not scene.facts:
            return question, _no_answer(rng, scene, chinese)
        seen = join_names_zh(scene.facts)
        return question, f"是的，有{seen}。" if present else f"没有，这是{seen}。"
    frames = ("Is there {n}?", "Is this {n}?", "Do you see {n}?", "Is there {n} in the image?")
    question = rng.choice(frames).format(n=asked.phrase)
    if not scene.facts:
        return question, _no_answer(rng, scene, chinese)
    seen = join_phrases(scene.facts)
    return question, f"Yes, there is {seen}." if present else f"No, this is {seen}."


def count_turn(rng: random.Random, scene: Scene, facts: Sequence[Fact], chinese: bool) -> Turn:
    """Ask for a number; the honest answer is that pocket cannot count."""
    fact = scene.facts[0] if scene.facts else rng.choice(facts)
    if chinese:
        question = f"有多少{fact.name_zh}？"
        seen = f"，但我看到了{join_names_zh(scene.facts)}" if scene.facts else ""
        return question, f"我不会数数{seen}。"
    question = rng.choice(COUNT).format(n=fact.name)
    seen = f", but I notice {join_phrases(scene.facts)}" if scene.facts else ""
    return question, f"I cannot count things{seen}."


def about_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask about place, use, sound, kind, a story or a poem of the thing that is there."""
    question, topic = rng.choice(REFERENCES_ZH if chinese else REFERENCES)
    if not scene.facts:
        return question, _no_answer(rng, scene, chinese)
    return question, tell(rng, scene.facts[0], topic, chinese)


def tell(rng: random.Random, fact: Fact, topic: str, chinese: bool) -> str:
    """Say one thing about a fact."""
    name, zh = _upper(fact.phrase), fact.name_zh
    kind = with_article(fact.kind)
    if topic == "story":
        return _story(rng, fact, chinese)
    if topic == "poem":
        return _poem(fact, chinese)
    if chinese:
        answers = {
            "does": fact.does_zh,
            "place": f"{zh}常在{fact.place_zh}。",
            "kind": f"{zh}属于{fact.kind_zh}。",
            "english": f"{zh}的英语是 {fact.name}。",
        }
        return answers[topic]
    answers = {
        "does": fact.does,
        "place": f"You can find {fact.phrase} {fact.place}.",
        "kind": f"{name} is {kind}.",
        "chinese": f"{name} is {zh} in Chinese.",
    }
    return answers[topic]


def knowledge_turn(rng: random.Random, facts: Sequence[Fact], chinese: bool) -> Turn:
    """A question about a concept that needs no media."""
    fact = rng.choice(facts)
    if chinese:
        zh = fact.name_zh
        question, topic = rng.choice(
            (
                (f"{zh}会发出什么声音？", "does"),
                (f"{zh}有什么用？", "does"),
                (f"在哪里可以找到{zh}？", "place"),
                (f"{zh}属于哪一类？", "kind"),
                (f"讲一个关于{zh}的小故事。", "story"),
                (f"写一首关于{zh}的小诗。", "poem"),
                (f"{zh}用英语怎么说？", "english"),
            )
        )
        return question, tell(rng, fact, topic, chinese)
    if rng.random() < 0.2:
        return _is_a_turn(rng, fact)
    phrase = fact.phrase
    question, topic = rng.choice(
        (
            (f"What sound does {phrase} make?", "does"),
            (f"What does {phrase} do?", "does"),
            (f"What is {phrase} used for?", "does"),
            (f"Where can you find {phrase}?", "place"),
            (f"What kind of thing is {phrase}?", "kind"),
            (f"Tell me a short story about {phrase}.", "story"),
            (f"Write a short poem about {phrase}.", "poem"),
            (f"What is {phrase} in Chinese?", "chinese"),
        )
    )
    return question, tell(rng, fact, topic, chinese)


def small_talk_turn(rng: random.Random) -> Turn:
    """A greeting or a question about the model itself."""
    return rng.choice(SMALL_TALK)


def talk(rng: random.Random, scene: Scene, facts: Sequence[Fact]) -> list[Turn]:
    """Draw one conversation about the media of a row: one to three turns."""
    chinese = rng.random() < 0.35
    makers: list[tuple[float, Callable[[], Turn]]] = [
        (5.0, lambda: what_turn(rng, scene, chinese)),
        (1.2, lambda: happening_turn(rng, scene, chinese)),
        (1.6, lambda: exists_turn(rng, scene, facts, chinese)),
        (0.4, lambda: count_turn(rng, scene, facts, chinese)),
    ]
    if len(scene.facts) < 2:
        makers.append((2.5, lambda: about_turn(rng, scene, chinese)))
    weights = [weight for weight, _ in makers]
    turns = [rng.choices(makers, weights)[0][1]()]
    while len(turns) < 3 and len(scene.facts) == 1 and rng.random() < 0.25:
        turns.append(about_turn(rng, scene, chinese))
    return turns


def join_phrases(facts: Sequence[Fact]) -> str:
    """`a dog and the sea`."""
    return " and ".join(fact.phrase for fact in facts)


def join_names_zh(facts: Sequence[Fact]) -> str:
    """`狗和海`."""
    return "和".join(fact.name_zh for fact in facts)


def with_article(noun: str) -> str:
    """`an animal`, `part of nature`."""
    if noun == "part of nature":
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _no_answer(rng: random.Random, scene: Scene, chinese: bool) -> str:
    if scene.blind:
        return rng.choice(NOTHING_ZH if chinese else NOTHING)
    return rng.choice(UNKNOWN_ZH if chinese else UNKNOWN)


def _is_a_turn(rng: random.Random, fact: Fact) -> Turn:
    kind = fact.kind if rng.random() < 0.5 else rng.choice(sorted(KINDS))
    question = f"Is {fact.phrase} {with_article(kind)}?"
    if kind == fact.kind:
        return question, f"Yes, {fact.phrase} is {with_article(kind)}."
    return question, f"No, {fact.phrase} is {with_article(fact.kind)}."


def _story(rng: random.Random, fact: Fact, chinese: bool) -> str:
    if chinese:
        who = rng.choice(("小明", "小红", "一个孩子"))
        return f"从前，{who}在{fact.place_zh}遇到了{fact.name_zh}。{fact.does_zh}{who}很高兴。"
    who = rng.choice(("Anna", "Tom", "a child"))
    where = fact.place
    return f"One day {who} found {fact.phrase} {where}. {fact.does} {_upper(who)} smiled all day."


def _poem(fact: Fact, chinese: bool) -> str:
    if chinese:
        return f"{fact.name_zh}啊{fact.name_zh}，\n你{fact.scene_zh}，\n我喜欢你。"
    return f"{_upper(fact.phrase)} {fact.scene},\nI look and I stay,\nit brightens my day."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
