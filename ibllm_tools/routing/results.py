"""Lines that say what experts found, in the language of the question, short and easy to read.

```
detector, image-1: 3 dogs (left, top right, middle), so yes
speech, audio-1, 3 words: "seven four two"
similarity to image-1: image-2 0.91, audio-1 0.40
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ibllm_tools.routing.spoken import count_words
from ibllm_tools.routing.words import Noun, noun_of

Box = tuple[float, float, float, float]
_PLACES = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)
_PLACES_ZH = (("左上", "上", "右上"), ("左", "中间", "右"), ("左下", "下", "右下"))
_MOST_PLACES = 6
_MOST_KINDS = 6
_LONGEST_WORDS = 1500


def place_of(box: Box, width: float, height: float, *, chinese: bool = False) -> str:
    """Name the ninth of a picture in which the middle of a box lies.

    Args:
        box: (x0, y0, x1, y1) in pixels.
        width: Of the picture in pixels.
        height: Likewise.
        chinese: The language.
    """
    column = min(2, max(0, int(3 * (box[0] + box[2]) / (2 * width))))
    row = min(2, max(0, int(3 * (box[1] + box[3]) / (2 * height))))
    return (_PLACES_ZH if chinese else _PLACES)[row][column]


def say_objects(
    id_: str,
    places: Mapping[str, Sequence[str]],
    asked: Sequence[str] = (),
    *,
    chinese: bool = False,
    so: str = "",
) -> str:
    """Say how many of what are in a picture, and where.

    Args:
        id_: Of the picture.
        places: Where each thing is, by name; see `place_of`.
        asked: What was asked about, told first; what is not there is told as well.
        chinese: The language.
        so: What follows for the question; see `conclude`.
    """
    wanted = {name: places.get(name, ()) for name in asked} or dict(places)
    parts = [_say_kind(noun_of(n), held, chinese=chinese) for n, held in wanted.items()]
    if len(parts) > _MOST_KINDS:
        parts = [*parts[:_MOST_KINDS], "…"]
    total = sum(len(held) for held in wanted.values())
    if chinese:
        told = "，".join(parts) or "什么也没有"
        told = (f"一共{total}个：" if len(parts) > 1 else "") + told
        return f"检测，{id_}：{told}{_so(so, chinese=True)}"
    told = ", ".join(parts) or "nothing"
    told = (f"{total} in all: " if len(parts) > 1 else "") + told
    return f"detector, {id_}: {told}{_so(so, chinese=False)}"


def _so(conclusion: str, *, chinese: bool) -> str:
    """A conclusion right after the facts."""
    if not conclusion:
        return ""
    return f"，所以{conclusion}" if chinese else f", so {conclusion}"


def _say_kind(noun: Noun, places: Sequence[str], *, chinese: bool) -> str:
    shown = [*places[:_MOST_PLACES], *(["…"] if len(places) > _MOST_PLACES else [])]
    if chinese:
        name = noun.name_zh or noun.name
        return f"{name}{len(places)}（{'、'.join(shown)}）" if places else f"没有{name}"
    if not places:
        return f"no {noun.plural}"
    name = noun.name if len(places) == 1 else noun.plural
    return f"{len(places)} {name} ({', '.join(shown)})"


def say_speech(id_: str, text: str, *, chinese: bool = False, so: str = "") -> str:
    """Say which words were heard in a recording.

    Args:
        id_: Of the recording.
        text: The words; "" for none.
        chinese: The language.
        so: What follows for the question; see `conclude_speech`.
    """
    words = " ".join(text.replace('"', "'").split())
    if len(words) > _LONGEST_WORDS:
        words = f"{words[:_LONGEST_WORDS]} …"
    ending, count = _so(so, chinese=chinese), count_words(words, chinese=chinese)
    if chinese:
        head = f"语音，{id_}"
        return f"{head}，{count}：“{words}”{ending}" if words else f"{head}：没有人说话{ending}"
    head = f"speech, {id_}"
    return f'{head}, {count}: "{words}"{ending}' if words else f"{head}: nobody speaks{ending}"


def say_likeness(query: str, scores: Mapping[str, float], *, chinese: bool = False) -> str:
    """Say how alike attachments are to one or to words, the most alike first.

    Args:
        query: An id, or words.
        scores: Cosine similarity by id.
        chinese: The language.
    """
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    listed = ", ".join(f"{id_} {score:.2f}" for id_, score in ranked)
    return f"和{query}的相似度：{listed}" if chinese else f"similarity to {query}: {listed}"


def say_pair(first: str, second: str, score: float, *, high: bool, chinese: bool = False) -> str:
    """Say how alike two attachments are, and whether that is much."""
    if chinese:
        return f"{first}和{second}的相似度：{score:.2f}（{'高' if high else '低'}）"
    return f"similarity of {first} and {second}: {score:.2f} ({'high' if high else 'low'})"


def say_senses(text: str, *, chinese: bool = False) -> str:
    """Say what a model perceived."""
    told = " ".join(text.split())
    return f"感知：{told}" if chinese else f"senses: {told}"
