"""Questions about what the media of a row show, and their answers.

What it is, its kind, whether something is there, how many, what could be happening, and what
is asked about it later. A row that shows nothing known is answered with doubt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ibllm_tools.train.knowledge import KIND_PHRASES, KINDS, Fact, are_alien
from ibllm_tools.train.phrasing import dress, upper_first
from ibllm_tools.train.seen_words import KIND_WORDS, pairs, texts
from ibllm_tools.train.talk_facts import ask_topic, draw_topic, is_a_turn, tell
from ibllm_tools.train.talk_pairs import two_turn

Turn = tuple[str, str]


@dataclass(frozen=True)
class Scene:
    """What the media of one row show: one fact, two mixed facts, or nothing known.

    Attributes:
        facts: One or two facts; empty where the media show nothing that is known.
        blind: The row has no media at all.
    """

    facts: tuple[Fact, ...]
    blind: bool = False


def what_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask what the media show."""
    share = rng.random()
    if len(scene.facts) < 2 and share < 0.08:
        return _word_turn(rng, scene, chinese)
    if share < 0.2:
        return _kind_turn(rng, scene, chinese)
    if share < 0.28:
        return _more_turn(rng, scene, chinese)
    frames, medium = _naming_frames(rng, len(scene.facts), chinese)
    question, answer = rng.choice(frames)
    question = dress(rng, question.format(m=medium), chinese=chinese)
    if not scene.facts:
        return question, doubt(rng, scene, chinese)
    named = {"a": join_phrases(scene.facts), "z": join_names_zh(scene.facts)}
    return question, answer.format(m=medium, M=upper_first(_an(medium)), **named)


def _naming_frames(
    rng: random.Random, n_facts: int, chinese: bool
) -> tuple[Sequence[tuple[str, str]], str]:
    """Draw a list of (question, answer) and a word for the medium; wrong media are common."""
    lists = ("ask_it", "ask_look", "ask_sound", "ask_shape", "ask_all")
    media = ("looks", "looks", "sounds", "shapes", "looks")
    i = rng.choices(range(5), (5, 4, 3, 2, 5 if n_facts == 2 else 1))[0]
    medium = rng.choice(texts(media[i], chinese=chinese))
    if lists[i] == "ask_all" and n_facts < 2:
        answer = "我注意到{z}。" if chinese else "I notice {a}."
        return [(question, answer) for question in texts("ask_all", chinese=chinese)], medium
    return pairs(lists[i], chinese=chinese), medium


def _word_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    question = dress(rng, rng.choice(texts("ask_word", chinese=chinese)),
                     chinese=chinese)  # fmt: skip
    if not scene.facts:
        return question, doubt(rng, scene, chinese)
    fact = scene.facts[0]
    return question, f"{fact.name_zh}。" if chinese else f"{upper_first(fact.name)}."


def _kind_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask "which animal is this?", sometimes where it is none."""
    true = rng.choice(scene.facts).kind if scene.facts else rng.choice(sorted(KINDS))
    alien = len(scene.facts) == 1 and rng.random() < 0.15
    kind = rng.choice([k for k in KINDS if are_alien(k, true)]) if alien else true
    medium = rng.choice(texts("looks", chinese=chinese))
    if chinese:
        question = rng.choice(texts("ask_kind", chinese=True)).format(k=KINDS[kind], m=medium)
    else:
        question = rng.choice(texts("ask_kind", chinese=False)).format(
            k=rng.choice(KIND_WORDS[kind]), m=medium
        )
    question = dress(rng, question, chinese=chinese)
    if not scene.facts:
        return question, doubt(rng, scene, chinese)
    if alien and chinese:
        return question, f"这不是{KINDS[kind]}，这是{join_names_zh(scene.facts)}。"
    seen = join_phrases(scene.facts)
    if chinese:
        return question, f"这是{join_names_zh(scene.facts)}。"
    return (
        question,
        f"This is not {KIND_PHRASES[kind]}. It is {seen}." if alien else f"It is {seen}.",
    )


def _more_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask for a description; the answer says what it is and one or two things about it."""
    medium = rng.choice(texts("looks", chinese=chinese))
    question = rng.choice(texts("ask_more", chinese=chinese)).format(m=medium)
    question = dress(rng, question, chinese=chinese)
    if not scene.facts:
        return question, doubt(rng, scene, chinese)
    if len(scene.facts) == 2:
        told = rng.choice(scene.facts)
        if chinese:
            return question, f"这里有{join_names_zh(scene.facts)}。{told.use_zh}"
        return question, f"This shows {join_phrases(scene.facts)}. {told.use}"
    fact = scene.facts[0]
    topics = rng.sample(("kind", "place", "sound", "use"), 2)
    told_all = [tell(rng, fact, topic, chinese=chinese) for topic in topics]
    if chinese:
        return question, f"{medium}里是{fact.name_zh}。" + "".join(told_all)
    return question, " ".join((f"The {medium} shows {fact.phrase}.", *told_all))


def happening_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask what could be going on."""
    medium = rng.choice(texts("looks", chinese=chinese))
    question = rng.choice(texts("happening", chinese=chinese)).format(m=medium)
    question = dress(rng, question, chinese=chinese)
    if not scene.facts:
        return question, doubt(rng, scene, chinese)
    if chinese:
        return question, "，".join(f"{f.name_zh}可能{f.scene_zh}" for f in scene.facts) + "。"
    return question, upper_first(", and ".join(f"{f.phrase} {f.scene}" for f in scene.facts)) + "."


def exists_turn(rng: random.Random, scene: Scene, facts: Sequence[Fact], chinese: bool) -> Turn:
    """Ask a yes/no question about one thing; half of those about something known are yes.

    Half of the negatives are of the same kind as what is there, the rest are any. The answer
    begins with yes or no and names what is seen, as it would be named.
    """
    present = bool(scene.facts) and rng.random() < 0.5
    asked = rng.choice(scene.facts) if present else _absent(rng, scene, facts)
    question = _ask_exists(rng, asked, chinese=chinese)
    return question, _exists_answer(rng, scene, asked, present=present, chinese=chinese)


def exists_pair(
    rng: random.Random, first: Sequence[Fact], second: Sequence[Fact], asked: Fact, chinese: bool
) -> tuple[Turn, Turn]:
    """Ask one question about two scenes: `asked` is in the first and not in the second.

    The question says nothing about the answer then, so that only the media do.
    """
    question = _ask_exists(rng, asked, chinese=chinese)
    yes, no = (
        _exists_answer(rng, Scene(tuple(shown)), asked, present=asked in shown, chinese=chinese)
        for shown in (first, second)
    )
    return (question, yes), (question, no)


def told_turn(rng: random.Random, facts: Sequence[Fact], chinese: bool) -> Turn:
    """Say what there is, and ask whether something is there; half of the answers are yes."""
    scene = Scene(tuple(rng.sample(list(facts), rng.choice((1, 1, 2)))))
    present = rng.random() < 0.5
    asked = rng.choice(scene.facts) if present else _absent(rng, scene, facts)
    seen = join_names_zh(scene.facts) if chinese else join_phrases(scene.facts)
    told = rng.choice(_TOLD_ZH if chinese else _TOLD).format(n=seen)
    question = told + ("" if chinese else " ") + _ask_exists(rng, asked, chinese=chinese)
    return question, _exists_answer(rng, scene, asked, present=present, chinese=chinese)


_TOLD = (
    "There is {n}.", "I see {n}.", "This is {n}.", "We heard {n}.", "Someone shows us {n}.",
    "The only thing here: {n}.", "It is {n}.",
)  # fmt: skip
_TOLD_ZH = ("这里有{n}。", "我看到{n}。", "这是{n}。", "图里只有{n}。", "我们听到了{n}。")


def _ask_exists(rng: random.Random, asked: Fact, *, chinese: bool) -> str:
    medium = rng.choice((*texts("looks", chinese=chinese), "图片" if chinese else "image"))
    frame = rng.choice(texts("exists", chinese=chinese))
    question = frame.format(n=asked.name_zh if chinese else asked.phrase, m=medium)
    return dress(rng, question, chinese=chinese)


def _absent(rng: random.Random, scene: Scene, facts: Sequence[Fact]) -> Fact:
    others = [f for f in facts if f not in scene.facts]
    kinds = {f.kind for f in scene.facts}
    near = [f for f in others if f.kind in kinds]
    return rng.choice(near if near and rng.random() < 0.5 else others)


def _exists_answer(
    rng: random.Random, scene: Scene, asked: Fact, *, present: bool, chinese: bool
) -> str:
    if scene.blind:
        return doubt(rng, scene, chinese)
    if not scene.facts:
        return "不，我不确定这是什么。" if chinese else "No, I cannot tell what this is."
    if chinese:
        if present:
            return f"是的，有{asked.name_zh}。"
        return f"没有，这是{join_names_zh(scene.facts)}。"
    if present:
        return f"Yes, there is {asked.phrase}."
    return f"No, this is {join_phrases(scene.facts)}."


def count_turn(rng: random.Random, scene: Scene, facts: Sequence[Fact], chinese: bool) -> Turn:
    """Ask for a number; the honest answer is that pocket cannot count."""
    fact = rng.choice(scene.facts or facts)
    medium = rng.choice(texts("looks", chinese=chinese))
    frame = rng.choice(texts("count", chinese=chinese))
    question = frame.format(n=fact.name_zh if chinese else fact.plural, m=medium)
    question = dress(rng, question, chinese=chinese)
    if scene.blind:
        return question, doubt(rng, scene, chinese)
    return question, _cannot(scene, "数数" if chinese else "count things", chinese)


def detail_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask for a colour, a text or a position, which pocket cannot tell."""
    frame, what = rng.choice(pairs("details", chinese=chinese))
    question = frame.format(m=rng.choice(texts("looks", chinese=chinese)))
    question = dress(rng, question, chinese=chinese)
    if scene.blind:
        return question, doubt(rng, scene, chinese)
    return question, _cannot(scene, f"分辨{what}" if chinese else f"tell {what}", chinese)


def _cannot(scene: Scene, act: str, chinese: bool) -> str:
    if chinese:
        return f"我不会{act}" + (
            f"，但我注意到{join_names_zh(scene.facts)}。" if scene.facts else "。"
        )
    seen = f", but I notice {join_phrases(scene.facts)}." if scene.facts else "."
    return f"I cannot {act}{seen}"


def about_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask about sound, use, place, kind, a story or a poem of the thing that is there."""
    topic = draw_topic(rng, chinese=chinese)
    fact = scene.facts[0] if scene.facts else None
    if fact is not None and topic == "kind" and rng.random() < 0.4:
        return is_a_turn(rng, fact, chinese=chinese, it="它" if chinese else "it")
    question = ask_topic(rng, topic, "它" if chinese else "it", fact, chinese=chinese)
    if fact is None:
        return question, doubt(rng, scene, chinese)
    return question, tell(rng, fact, topic, chinese=chinese)


def pair_turn(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Compare the two things that the media show, or ask about one of them by its name."""
    first, second = scene.facts
    if rng.random() < 0.75:
        both = rng.random() < 0.7
        return two_turn(rng, first, second, chinese=chinese, both=both)
    topic = draw_topic(rng, chinese=chinese)
    it = first.name_zh if chinese else f"the {first.name}"
    question = ask_topic(rng, topic, it, first, chinese=chinese)
    return question, tell(rng, first, topic, chinese=chinese)


def doubt(rng: random.Random, scene: Scene, chinese: bool) -> str:
    """Say that nothing is attached, or that it is not known what is."""
    if scene.blind:
        return rng.choice(texts("nothing", chinese=chinese))
    return rng.choice(texts("unknown", chinese=chinese))


def join_phrases(facts: Sequence[Fact]) -> str:
    """`a dog and the sea`."""
    return " and ".join(fact.phrase for fact in facts)


def join_names_zh(facts: Sequence[Fact]) -> str:
    """`狗和海`."""
    return "和".join(fact.name_zh for fact in facts)


def _an(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun
