"""What is told about a concept, and questions about concepts that need no media.

Place, sound, use, kind, size, the other language's word, stories, poems, comparisons.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ibllm_tools.train.knowledge import (
    KIND_PHRASES,
    KIND_PLURALS,
    KINDS,
    Fact,
    are_alien,
    bigger,
)
from ibllm_tools.train.phrasing import dress, upper_first
from ibllm_tools.train.tales import poem, story

Turn = tuple[str, str]
"""One question and its answer."""

# {it}: "it" after media, or the phrase of a named concept.
TOPICS = {
    "sound": (
        *("What sound does {it} make?", "What does {it} sound like?", "How does {it} sound?"),
        *("Which sound does {it} make?", "What noise does {it} make?", "Describe its sound: {it}."),
        *("Does {it} make a sound?", "Tell me what sound {it} makes.", "What can I hear from {it}?"),
        *("What kind of noise does {it} make?", "What would {it} sound like?"),
        *("Can you tell me the sound that {it} makes?", "Is there a typical sound that {it} makes?"),
    ),
    "use": (
        *("What is {it} used for?", "What is {it} good for?", "What does {it} do?"),
        *("What can {it} be used for?", "What is the use of {it}?", "Why do we need {it}?"),
        *("Tell me what {it} is for.", "What is the purpose of {it}?", "What is {it} for?"),
        *("How is {it} useful?", "What can I do with {it}?", "What's {it} used for?"),
    ),
    "place": (
        *("Where can you find {it}?", "Where would you find {it}?", "Where is {it} found?"),
        *("Where does one find {it}?", "Where can I see {it}?", "Where is {it} usually?"),
        *("In what place is {it} typical?", "Where should I look for {it}?"),
        *("Tell me where {it} can be found.", "What is a typical place for {it}?"),
        *("Where does {it} belong?", "Where would I expect {it}?", "Where do you usually see {it}?"),
    ),
    "kind": (
        *("What kind of thing is {it}?", "What category does {it} belong to?"),
        *("What type of thing is {it}?", "Which category is {it}?", "What sort of thing is {it}?"),
        *("How would you classify {it}?", "Tell me the category of {it}.", "What class is {it} in?"),
        *("Is {it} an animal, a vehicle or something else?", "To which group does {it} belong?"),
    ),
    "chinese": (
        *("What is {it} in Chinese?", "What is {it} called in Chinese?", "How do you say {it} in "
          "Chinese?"),
        *("What is the Chinese word for {it}?", "Say {it} in Chinese.", "Translate {it} into "
          "Chinese."),
        *("Tell me the Chinese name of {it}.", "How is {it} called in Chinese?"),
    ),
    "story": (
        *("Tell me a short story about {it}.", "Tell me a story about {it}.", "Write a story about "
          "{it}."),
        *("Write a short story about {it}.", "Make up a story with {it}.", "Can you tell a story "
          "about {it}?"),
        *("I would like a little story about {it}.", "Tell a tale about {it}."),
    ),
    "poem": (
        *("Write a short poem about {it}.", "Write a poem about {it}.", "Make a poem about {it}."),
        *("Can you write a poem about {it}?", "Give me a little poem about {it}."),
        *("Compose a few lines about {it}.", "A poem about {it}, please.", "Rhyme something about "
          "{it}."),
    ),
    "about": (
        *("Tell me about {it}.", "Tell me more about {it}.", "What do you know about {it}?"),
        *("What can you say about {it}?", "Explain {it}.", "Tell me something about {it}."),
    ),
}  # fmt: skip
LIVES = ("Where does {it} live?", "Where do they live?", "Where does {it} usually live?")
IT_ONLY = {
    "sound": ("Its sound?", "And its sound?", "What about its sound?", "What noise would that be?"),
    "use": ("Its use?", "What for?", "What do people use it for?", "And what is it for?"),
    "place": ("Its usual place?", "Where?", "Where can that be found?", "And where is it at home?"),
    "kind": ("What category?", "Which kind of thing is that?", "And its category?"),
    "chinese": ("And in Chinese?", "In Chinese?", "What is that in Chinese?"),
    "story": ("A story, please.", "Now a short story."),
    "poem": ("A poem, please.", "Now a poem."),
    "about": ("Tell me more.", "Tell me more about that.", "What else do you know?"),
}
TOPICS_ZH = {
    "sound": (
        *("{it}会发出什么声音？", "{it}的声音是什么样的？", "{it}怎么叫？", "{it}听起来怎么样？"),
        *("{it}会出声吗？", "说说{it}的声音。", "{it}有什么样的声音？", "{it}通常发出怎样的声音？"),
    ),
    "use": (
        *("{it}有什么用？", "{it}是做什么用的？", "{it}可以用来做什么？", "{it}的用途是什么？"),
        *("说说{it}的用处。", "{it}能干什么？", "我们为什么需要{it}？", "{it}对我们有什么帮助？"),
    ),
    "place": (
        *("在哪里可以找到{it}？", "{it}通常在哪里？", "哪里能看到{it}？", "{it}一般出现在什么地方？"),
        *("在什么地方能见到{it}？", "{it}常在哪儿？", "我该去哪里找{it}？", "说说{it}常在的地方。"),
    ),
    "kind": (
        *("{it}属于哪一类？", "{it}是什么类别？", "{it}属于什么种类？", "{it}是哪类东西？"),
        *("给{it}分个类。", "{it}是动物、交通工具还是别的？", "{it}该归到哪一类？"),
    ),
    "english": (
        *("{it}用英语怎么说？", "{it}的英文是什么？", "{it}英语叫什么？", "请把{it}翻译成英语。"),
        *("{it}的英语单词是什么？", "告诉我{it}的英文名字。"),
    ),
    "story": (
        *("讲一个关于{it}的小故事。", "讲个{it}的故事。", "写一个关于{it}的故事。", "编一个{it}的小故事。"),
        *("我想听关于{it}的故事。", "请讲一讲{it}的故事。"),
    ),
    "poem": (
        *("写一首关于{it}的小诗。", "写一首{it}的诗。", "为{it}作一首诗。", "请写几句关于{it}的诗。"),
        *("我想要一首关于{it}的诗。", "用诗来写{it}。"),
    ),
    "about": (
        *("介绍一下{it}。", "说说{it}。", "你知道{it}的什么？", "再讲讲{it}。", "给我讲讲{it}。"),
    ),
}  # fmt: skip
LIVES_ZH = ("{it}住在哪里？", "{it}生活在哪里？", "{it}一般住在什么地方？")
IT_ONLY_ZH = {
    "sound": ("声音呢？", "那声音呢？", "是什么样的声音？"),
    "use": ("有什么用处？", "那用途呢？", "用来做什么？"),
    "place": ("在哪里？", "通常在哪儿能见到？", "那地点呢？"),
    "kind": ("哪一类？", "那类别呢？", "属于什么？"),
    "english": ("英语呢？", "用英文怎么讲？", "那英语怎么说？"),
    "story": ("来个故事吧。", "再讲个故事。"),
    "poem": ("来首诗吧。", "再写首诗。"),
    "about": ("再多说一点。", "还有呢？", "多告诉我一些。"),
}
_LIVING = ("animal", "human", "plant")


def ask_topic(rng: random.Random, topic: str, it: str, fact: Fact | None, *, chinese: bool) -> str:
    """Word a question about one topic.

    Args:
        rng: Random source.
        topic: A key of `TOPICS`, or of `TOPICS_ZH`.
        it: "it", "它", or a concept's phrase or Chinese name.
        fact: What it is about, so that only living things are said to live; None if unknown.
        chinese: The language.
    """
    table, lives = (TOPICS_ZH, LIVES_ZH) if chinese else (TOPICS, LIVES)
    frames = table[topic]
    living = fact is None or fact.kind in _LIVING
    if topic == "place" and living and rng.random() < 0.35:
        frames = lives[:1] if it not in ("it", "它") else lives
    elif it in ("it", "它") and rng.random() < 0.2:
        frames = (IT_ONLY_ZH if chinese else IT_ONLY)[topic]
    question = rng.choice(frames).format(it=it)
    if it in ("it", "它") and rng.random() < 0.25:
        question = _follow(rng, question, chinese=chinese)
    return dress(rng, question, chinese=chinese)


def _follow(rng: random.Random, question: str, *, chinese: bool) -> str:
    if chinese:
        return (
            question
            if question[0] in "那再来"
            else rng.choice(("那", "那么，", "还有，")) + question
        )
    before = rng.choice(("And ", "And ", "OK, and ", "Also: ", "Then ", "By the way, "))
    return before + question[:1].lower() + question[1:]


def draw_topic(rng: random.Random, *, chinese: bool) -> str:
    """Draw what to ask about."""
    names = ("sound", "use", "place", "kind", "english" if chinese else "chinese", "story", "poem",
             "about")  # fmt: skip
    return rng.choices(names, (4, 3, 4, 3, 2.5, 1, 1, 1.5))[0]


def tell(rng: random.Random, fact: Fact, topic: str, *, chinese: bool) -> str:
    """Say one thing about a fact."""
    if topic == "story":
        return story(rng, fact, chinese=chinese)
    if topic == "poem":
        return poem(rng, fact, chinese=chinese)
    return (_tell_zh if chinese else _tell_en)(fact, topic)


def _tell_en(fact: Fact, topic: str) -> str:
    name, kind = upper_first(fact.phrase), KIND_PHRASES[fact.kind]
    place = f"You can find {fact.phrase} {fact.place}."
    answers = {
        "sound": fact.sound if "no sound" not in fact.sound else f"{fact.sound} {fact.use}",
        "use": fact.use,
        "place": place,
        "kind": f"{name} is {kind}.",
        "chinese": f"{name} is {fact.name_zh} in Chinese.",
        "about": f"{name} is {kind}. {place} {fact.use}",
    }
    return answers[topic]


def _tell_zh(fact: Fact, topic: str) -> str:
    zh = fact.name_zh
    place = f"{zh}常在{fact.place_zh}。"
    answers = {
        "sound": fact.sound_zh
        if "不出声" not in fact.sound_zh
        else f"{fact.sound_zh}{fact.use_zh}",
        "use": fact.use_zh,
        "place": place,
        "kind": f"{zh}属于{fact.kind_zh}。",
        "english": f"{zh}的英语是 {fact.name}。",
        "about": f"{zh}属于{fact.kind_zh}。{place}{fact.use_zh}",
    }
    return answers[topic]


def knowledge_turn(rng: random.Random, facts: Sequence[Fact], chinese: bool) -> Turn:
    """A question about concepts that are named, so that no media are needed."""
    share = rng.random()
    if share < 0.15:
        return is_a_turn(rng, rng.choice(facts), chinese=chinese)
    if share < 0.35 and len(facts) > 1:
        first, second = rng.sample(list(facts), 2)
        return compare_turn(rng, first, second, chinese=chinese)
    fact = rng.choice(facts)
    if share < 0.43:
        return translate_turn(rng, fact, chinese=chinese)
    topic = draw_topic(rng, chinese=chinese)
    it = fact.name_zh if chinese else fact.phrase
    question = ask_topic(rng, topic, it, fact, chinese=chinese)
    return question, tell(rng, fact, topic, chinese=chinese)


def translate_turn(rng: random.Random, fact: Fact, *, chinese: bool) -> Turn:
    """Ask for the word in the language of the question."""
    if chinese:
        frames = ("{n} 用中文怎么说？", "{n} 是什么意思？", "英语单词 {n} 的中文是什么？")
        question = rng.choice(frames).format(n=fact.name)
        return dress(rng, question, chinese=True), f"{fact.name} 的中文是{fact.name_zh}。"
    frames = ("What does {z} mean?", "What is {z} in English?", "Translate {z} into English.")
    question = rng.choice(frames).format(z=fact.name_zh)
    return dress(rng, question, chinese=False), f"{fact.name_zh} means {fact.phrase}."


def is_a_turn(rng: random.Random, fact: Fact, *, chinese: bool, it: str = "") -> Turn:
    """Ask whether a concept is of a kind; half yes, and a no is never arguable.

    Args:
        rng: Random source.
        fact: The concept.
        chinese: The language.
        it: How the question calls it; its own name by default.
    """
    kind = fact.kind
    if rng.random() < 0.5:
        kind = rng.choice([k for k in KINDS if are_alien(k, fact.kind)])
    if chinese:
        frames = ("{it}是{k}吗？", "{it}属于{k}吗？", "{it}算不算{k}？")
        question = rng.choice(frames).format(it=it or fact.name_zh, k=KINDS[kind])
        told = f"{fact.name_zh}属于{fact.kind_zh}。"
        return dress(rng, question, chinese=True), (
            "是的，" if kind == fact.kind else "不是，"
        ) + told
    frames = ("Is {it} {k}?", "Would you say {it} is {k}?", "Is it true that {it} is {k}?")
    question = rng.choice(frames).format(it=it or fact.phrase, k=KIND_PHRASES[kind])
    told = f"{fact.phrase} is {KIND_PHRASES[fact.kind]}."
    return dress(rng, question, chinese=False), ("Yes, " if kind == fact.kind else "No, ") + told


def compare_turn(
    rng: random.Random, first: Fact, second: Fact, *, chinese: bool, both: bool = False
) -> Turn:
    """Compare two concepts by size, or say what sets them apart.

    Args:
        rng: Random source.
        first: One concept.
        second: The other.
        chinese: The language.
        both: The question does not name them, since the media show both.
    """
    by_size = rng.random() < 0.6 and bool(first.size_m and second.size_m)
    names = [f.name_zh if chinese else f.phrase for f in (first, second)]
    question = _ask_comparison(rng, names, by_size=by_size, chinese=chinese, both=both)
    tell_it = _tell_size if by_size else _tell_difference
    return dress(rng, question, chinese=chinese), tell_it(first, second, chinese=chinese)


def _ask_comparison(
    rng: random.Random, names: Sequence[str], *, by_size: bool, chinese: bool, both: bool
) -> str:
    if chinese and by_size:
        frames = ("哪个更大？", "谁更大？", "两个当中哪个更大？", "哪一个大一些？")
        if not both:
            frames = (
                "{0}和{1}哪个更大？",
                "{0}大还是{1}大？",
                "谁更大，{0}还是{1}？",
                "比较{0}和{1}的大小。",
            )
    elif chinese:
        frames = ("它们有什么不同？", "它们有什么区别？", "比较一下它们。", "两者有什么不一样？")
        if not both:
            frames = ("{0}和{1}有什么不同？", "{0}和{1}有什么区别？", "比较一下{0}和{1}。")
    elif by_size:
        frames = ("Which is bigger?", "Which one is larger?", "Which of the two is bigger?",
                  "What is bigger?")  # fmt: skip
        if not both:
            frames = ("Which is bigger, {0} or {1}?", "What is larger, {0} or {1}?",
                      "Compare the size of {0} and {1}.", "Is {0} or {1} bigger?")  # fmt: skip
    else:
        frames = ("What is the difference?", "How do they differ?", "Compare them.",
                  "What is the difference between them?", "Compare the two.")  # fmt: skip
        if not both:
            frames = ("What is the difference between {0} and {1}?", "How does {0} differ from {1}?",
                      "Compare {0} and {1}.", "What sets {0} and {1} apart?")  # fmt: skip
    return rng.choice(frames).format(*names)


def _tell_size(first: Fact, second: Fact, *, chinese: bool) -> str:
    big = bigger(first, second)
    if big is None:
        if chinese:
            return f"{first.name_zh}和{second.name_zh}差不多大。"
        return f"{upper_first(first.phrase)} and {second.phrase} are about the same size."
    small = second if big is first else first
    if chinese:
        return f"{big.name_zh}比{small.name_zh}大。"
    return f"{upper_first(big.phrase)} is bigger than {small.phrase}."


def _tell_difference(first: Fact, second: Fact, *, chinese: bool) -> str:
    alike = first.kind == second.kind
    if chinese:
        if alike:
            return f"它们都属于{first.kind_zh}。{first.use_zh}{second.use_zh}"
        return (
            f"{first.name_zh}属于{first.kind_zh}，{second.name_zh}属于{second.kind_zh}。"
            f"{first.use_zh}{second.use_zh}"
        )
    if alike:
        return f"Both are {KIND_PLURALS[first.kind]}. {first.use} {second.use}"
    kinds = [KIND_PHRASES[f.kind] for f in (first, second)]
    return (
        f"{upper_first(first.phrase)} is {kinds[0]}, and {second.phrase} is {kinds[1]}. "
        f"{first.use} {second.use}"
    )
