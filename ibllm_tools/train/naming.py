"""When an answer names the right concept: the rule behind every accuracy of the model card.

An English answer is right if the concept's name, or a listed synonym, stands in it as a word
(a plural s is allowed) and no other concept's name does. A Chinese answer has no spaces: names
are found from left to right, the longest first, and words that merely contain a name's
character (a road, 马路, contains that of the horse) name nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ibllm_tools.train.knowledge import KINDS, Fact

# Common words that contain a concept's character but do not name it.
_OTHER_WORDS = (
    *("人类", "机器人", "别人", "主人", "客人", "人工", "人生", "雪人"),
    *("马路", "马上", "马虎", "斑马", "河马", "海马", "罗马", "马戏", "马厩", "马来"),
    *("牛奶", "牛仔", "蜗牛", "牛排", "羊毛", "海狗", "熊猫", "猫头鹰", "鸡蛋", "火鸡", "田鸡"),
    *("鱼缸", "鳄鱼", "鲸鱼", "章鱼", "火箭", "火星", "火山", "火柴", "火腿", "红绿灯", "路灯"),
    *("海豚", "海鸥", "海报", "上海", "海拔", "雨伞", "雨衣", "热门", "部门", "专门", "门票"),
    *("分钟", "钟头", "树叶", "起床", "门口", "火炉", "壁炉"),
)


class Names:
    """Finds concept names in answers."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        """Compile one English pattern a concept, and one Chinese pattern of all words."""
        self._patterns = [
            re.compile(
                r"\b(?:" + "|".join(map(re.escape, (f.name, *f.synonyms))) + r")(?:s|es)?\b",
                re.IGNORECASE,
            )
            for f in facts
        ]
        self._kinds = [f.kind for f in facts]
        self._words_zh = {w: i for i, f in enumerate(facts) for w in (f.name_zh, *f.synonyms_zh)}
        words = sorted({*self._words_zh, *_OTHER_WORDS}, key=len, reverse=True)
        self._pattern_zh = re.compile("|".join(map(re.escape, words)))

    def named(self, answer: str) -> set[int]:
        """Return the ids of all concepts that an answer names in English."""
        return {i for i, pattern in enumerate(self._patterns) if pattern.search(answer)}

    def named_zh(self, answer: str) -> set[int]:
        """Return the ids of all concepts that an answer names in Chinese."""
        found = (self._words_zh.get(word) for word in self._pattern_zh.findall(answer))
        return {i for i in found if i is not None}

    def is_right(self, answer: str, concept: int) -> bool:
        """Tell whether an answer names this concept in English and no other."""
        return self.named(answer) == {concept}

    def is_right_zh(self, answer: str, concept: int) -> bool:
        """Tell whether an answer names this concept in Chinese and no other."""
        return self.named_zh(answer) == {concept}

    def kinds_named(self, answer: str, *, chinese: bool = False) -> set[str]:
        """Return the kinds of all concepts that an answer names."""
        found = self.named_zh(answer) if chinese else self.named(answer)
        return {self._kinds[i] for i in found}


def is_chinese(answer: str) -> bool:
    """Tell whether an answer is written in Chinese; one character says about three letters."""
    n_han = len(re.findall(r"[\u4e00-\u9fff]", answer))
    return n_han > 0 and 3 * n_han >= len(re.findall(r"[A-Za-z]", answer))


def kind_named(answer: str) -> set[str]:
    """Return the categories that an answer spells out, in either language."""
    low = answer.lower()
    return {
        kind
        for kind, zh in KINDS.items()
        if re.search(rf"\b{re.escape(kind)}s?\b", low) or zh in answer
    }
