"""What pocket is taught to say and to see: conversations, facts, the naming rule, features."""

import random
import re
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ibllm_tools.cache import CacheSettings, VisualCache
from ibllm_tools.train.data import Concept
from ibllm_tools.train.features import FeatureNoise, FeatureSource, faint
from ibllm_tools.train.knowledge import KINDS, are_alien, bigger, facts_for
from ibllm_tools.train.naming import Names, is_chinese, kind_named
from ibllm_tools.train.photo_features import PhotoFeatures, is_for_evaluation
from ibllm_tools.train.talk import (
    CHINESE_SHARE,
    Scene,
    about_turn,
    blind_talk,
    compare_turn,
    count_turn,
    exists_turn,
    knowledge_talk,
    talk,
    what_turn,
)

TABLE = [
    ("dog", "狗"), ("cat", "猫"), ("bird", "鸟"), ("frog", "青蛙"), ("cow", "牛"), ("sheep", "羊"),
    ("pig", "猪"), ("chicken", "鸡"), ("horse", "马"), ("lion", "狮子"), ("monkey", "猴子"),
    ("insect", "昆虫"), ("fish", "鱼"), ("person", "人"), ("baby", "婴儿"), ("car", "汽车"),
    ("bus", "公交车"), ("truck", "卡车"), ("train", "火车"), ("motorcycle", "摩托车"),
    ("bicycle", "自行车"), ("airplane", "飞机"), ("helicopter", "直升机"), ("boat", "船"),
    ("clock", "时钟"), ("keyboard", "键盘"), ("telephone", "电话"), ("computer", "电脑"),
    ("television", "电视"), ("chair", "椅子"), ("table", "桌子"), ("sofa", "沙发"), ("bed", "床"),
    ("lamp", "灯"), ("bottle", "瓶子"), ("cup", "杯子"), ("guitar", "吉他"), ("piano", "钢琴"),
    ("toilet", "马桶"), ("door", "门"), ("fire", "火"), ("rain", "雨"), ("sea", "海"),
    ("tree", "树"), ("house", "房子"),
]  # fmt: skip
FACTS = facts_for([Concept(i, *names) for i, names in enumerate(TABLE)])
NAMES = Names(FACTS)
ID = {fact.name: i for i, fact in enumerate(FACTS)}
DOUBT = re.compile(r"not sure|do not know|cannot|不确定|不知道|不会")


def draw_scene(rng, n_facts):
    return Scene(tuple(rng.sample(FACTS, n_facts)))


def ids_of(scene):
    return {ID[fact.name] for fact in scene.facts}


def many_talks(count=3000, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        scene = draw_scene(rng, rng.choice((0, 1, 1, 1, 2)))
        yield scene, talk(rng, scene, FACTS)


def test_a_seed_draws_the_same_conversations():
    first, second = (list(many_talks(200, seed=5)) for _ in range(2))
    assert first == second
    assert first != list(many_talks(200, seed=6))


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_every_fact_is_whole_and_names_only_its_concept(fact):
    texts = (fact.sound, fact.use, fact.place, fact.scene, fact.phrase, fact.plural)
    texts_zh = (fact.sound_zh, fact.use_zh, fact.place_zh, fact.scene_zh)
    assert all(texts)
    assert all(texts_zh)
    assert all(text.endswith(".") for text in texts[:2])
    assert all(text.endswith("。") for text in texts_zh[:2])
    assert fact.kind in KINDS
    assert set().union(*map(NAMES.named, texts)) == {ID[fact.name]}
    assert set().union(*map(NAMES.named_zh, texts_zh)) == {ID[fact.name]}
    assert all(is_chinese(text) for text in texts_zh)


def test_first_answers_name_what_is_there_and_nothing_else():
    for scene, turns in many_talks():
        answer = turns[0][1]
        assert NAMES.named(answer) <= ids_of(scene), turns
        assert NAMES.named_zh(answer) <= ids_of(scene), turns


@pytest.mark.parametrize("chinese", [False, True])
def test_asked_what_it_is_all_things_are_named(chinese):
    rng = random.Random(0)
    for _ in range(600):
        scene = draw_scene(rng, rng.choice((1, 2)))
        question, answer = what_turn(rng, scene, chinese)
        named = NAMES.named_zh(answer) if chinese else NAMES.named(answer)
        assert named == ids_of(scene), (question, answer)


def test_two_fifths_are_chinese_and_answered_in_chinese():
    counts = Counter()
    for scene, turns in many_talks(2000):
        for question, answer in turns:
            zh = is_chinese(question)
            other = "英" in question or "Chinese" in question or (" " in question and zh)
            counts[zh] += 1
            if not other and "英语" not in answer:
                assert is_chinese(answer) is zh, (scene, question, answer)
    share = counts[True] / counts.total()
    assert abs(share - CHINESE_SHARE) < 0.04


@pytest.mark.parametrize("n_facts", [1, 2])
@pytest.mark.parametrize("chinese", [False, True])
def test_existence_is_half_yes_and_consistent(n_facts, chinese):
    rng = random.Random(1)
    n_yes = n_near = n_no = 0
    for _ in range(1500):
        scene = draw_scene(rng, n_facts)
        question, answer = exists_turn(rng, scene, FACTS, chinese)
        asked = NAMES.named_zh(question) if chinese else NAMES.named(question.lower())
        yes = answer.startswith("是的" if chinese else "Yes")
        assert yes or answer.startswith("没有" if chinese else "No,")
        assert len(asked) == 1
        assert yes is (asked <= ids_of(scene))
        n_yes += yes
        if not yes:
            n_no += 1
            n_near += FACTS[asked.pop()].kind in {f.kind for f in scene.facts}
            told = NAMES.named_zh(answer) if chinese else NAMES.named(answer)
            assert told == ids_of(scene)
    assert 0.45 < n_yes / 1500 < 0.55
    assert n_near / n_no > 0.5


@pytest.mark.parametrize("chinese", [False, True])
def test_what_is_not_known_is_doubted(chinese):
    rng = random.Random(2)
    for _ in range(300):
        for maker in (what_turn, about_turn):
            question, answer = maker(rng, Scene(()), chinese)
            assert DOUBT.search(answer), (question, answer)
            assert not NAMES.named(answer)
            assert not NAMES.named_zh(answer)
        _, answer = exists_turn(rng, Scene(()), FACTS, chinese)
        assert answer.startswith("不" if chinese else "No")


def test_nothing_is_counted():
    rng = random.Random(3)
    for _ in range(200):
        scene = draw_scene(rng, 1)
        assert "cannot count" in count_turn(rng, scene, FACTS, False)[1]
        assert "不会数" in count_turn(rng, scene, FACTS, True)[1]


def test_later_turns_refer_to_what_was_shown():
    found = 0
    for scene, turns in many_talks(2000, seed=4):
        if len(scene.facts) != 1 or len(turns) < 3:
            continue
        fact = scene.facts[0]
        found += any(
            answer in (fact.sound, fact.use, fact.sound_zh, fact.use_zh)
            or answer.startswith(f"You can find {fact.phrase}")
            for _, answer in turns[2:]
        )
    assert found > 30


@pytest.mark.parametrize(
    ("first", "second", "answer", "answer_zh"),
    [
        ("dog", "bus", "A bus is bigger than a dog.", "公交车比狗大。"),
        ("bed", "sofa", "A bed and a sofa are about the same size.", "床和沙发差不多大。"),
    ],
)
def test_sizes_are_compared(first, second, answer, answer_zh):
    pair = [FACTS[ID[name]] for name in (first, second)]
    rng = random.Random(0)
    told = {compare_turn(rng, *pair, chinese=False)[1] for _ in range(40)}
    told_zh = {compare_turn(rng, *pair, chinese=True)[1] for _ in range(40)}
    assert answer in told
    assert answer_zh in told_zh


def test_rain_has_no_size_and_nothing_is_arguable():
    assert bigger(FACTS[ID["rain"]], FACTS[ID["dog"]]) is None
    assert not are_alien("human", "animal")
    assert are_alien("animal", "vehicle")
    assert not any(are_alien(kind, kind) for kind in KINDS)


def test_talk_without_media_says_that_nothing_is_there():
    rng = random.Random(0)
    for _ in range(200):
        assert re.search(r"nothing attached|do not see|没有", blind_talk(rng, FACTS)[0][1])
    assert all(knowledge_talk(rng, FACTS) for _ in range(200))


SUITE_PROMPTS = (
    "describe this audio", "concise description of this image", "write a story about a cat.",
    "what is 1 + 2", "san francisco", "tell me a joke", "magic_function", "你好啊集团",
    "generate a haiku", "summarize this document",
)  # fmt: skip


def test_no_prompt_of_the_standard_suites_is_taught():
    rng = random.Random(7)
    texts = [turn for _, turns in many_talks(3000, seed=7) for turn in turns]
    texts += [turn for _ in range(3000) for turn in knowledge_talk(rng, FACTS)]
    joined = "\n".join(question for question, _ in texts).lower()
    assert not [prompt for prompt in SUITE_PROMPTS if prompt in joined]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("这是一只小狗。", {"dog"}),
        ("马路上有一辆公交车。", {"bus"}),
        ("人类喜欢火车。", {"train"}),
        ("狗和大海。", {"dog", "sea"}),
        ("熊猫吃竹子。", set()),
        ("马桶在浴室里。", {"toilet"}),
        ("摩托车很快。", {"motorcycle"}),
    ],
)
def test_chinese_names_are_found_longest_first(answer, named):
    assert NAMES.named_zh(answer) == {ID[name] for name in named}


def test_kinds_are_read_from_answers():
    assert NAMES.kinds_named("A dog and a bus.") == {"animal", "vehicle"}
    assert NAMES.kinds_named("狗和公交车。", chinese=True) == {"animal", "vehicle"}
    assert kind_named("A dog is an animal.") == {"animal"}
    assert kind_named("公交车属于交通工具。") == {"vehicle"}


def a_source(**changes):
    """Three concepts along three axes; the third has words and no photos."""
    torch.manual_seed(0)
    axes = torch.eye(16)
    concept = torch.tensor([0] * 6 + [1] * 6)
    views = F.normalize(axes[concept] + 0.05 * torch.randn(2, 12, 16), dim=-1)
    features = PhotoFeatures(
        views=views,
        concept=concept,
        nothing=F.normalize(axes[5] + 0.05 * torch.randn(8, 16), dim=-1),
        collages=F.normalize(axes[6] + 0.05 * torch.randn(8, 16), dim=-1),
        strangers=torch.empty(0, 16),
        words=axes[None, :3],
    )
    quiet = {"spread": 0.1, "stray": 0.0, "gap_spread": 0.1, "gap_stray": 0.0, **changes}
    return FeatureSource(features, VisualCache(views[0]), FeatureNoise(**quiet))


def test_rows_see_what_they_say():
    source = a_source(blended=0.0)
    assert source.concepts == [0, 1, 2]
    shown = torch.tensor([[0, -1], [1, -1], [2, -1], [0, 1], [0, faint(1)], [-1, -1]] * 20)
    x = source.draw(shown, random.Random(0)).view(20, 6, 16)
    for i in range(3):
        assert (x[:, i].argmax(-1) == i).all()
        assert torch.allclose(x[:, i].norm(dim=-1), torch.ones(20), atol=1e-5)
    assert (x[:, 3, :2].min(-1).values > 0.25).all()  # both are there, and the sum is shorter
    assert (x[:, 3].norm(dim=-1) < 0.9).all()
    assert (x[:, 4, 0] > 3 * x[:, 4, 1]).all()
    assert (x[:, 5, :2].max(-1).values < 0.99).all()


def test_rows_are_drawn_by_the_seed():
    source, shown = a_source(), torch.tensor([[0, 1], [2, -1], [-1, -1]])
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(source.draw(shown, random.Random(seed)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_retrieval_before_mixing_keeps_both_things():
    """A mix that leans to one side is pulled further by the cache, its parts are not."""
    source, settings = a_source(), CacheSettings(k=3, temperature=20.0, weight=0.9)
    first, second = source.features.views[0, 0], source.features.views[0, 7]
    mix = 0.6 * first + 0.4 * second
    pulled = source.cache.blend(mix[None], settings)[0]
    apart = source.cache.blend(torch.stack([first, second]), settings)
    kept = 0.6 * apart[0] + 0.4 * apart[1]
    assert kept[1] / kept[0] > 0.5 > pulled[1] / pulled[0]


@pytest.mark.parametrize("before", [False, True])
def test_the_config_says_when_the_cache_blends(before, tmp_path):
    from tiny_model import save_tiny_model

    from ibllm_tools.media import Media
    from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor

    folder = save_tiny_model(tmp_path / "tiny")
    model = ImageBindLLM.from_pretrained(folder).eval()
    model.config.cache_before_mixing = before
    processor = ImageBindLLMProcessor.from_pretrained(folder)
    photo = Media.from_array((torch.rand(32, 32, 3) * 255).byte().numpy(), "image")
    cloud = Media.from_array(torch.randn(256, 3).numpy(), "point")
    settings = CacheSettings(k=3)

    def sensed(*media, **options):
        batch = processor("x", media=list(media))["media"]
        return model.sense(batch, **options)[0]

    parts = [sensed(m, cache=settings) for m in (photo, cloud)]
    mixed = sensed(photo, cloud, cache=settings)
    later = model.cache.blend(sensed(photo, cloud, cache=False), settings)
    expected = (parts[0] + parts[1]) / 2 if before else later
    assert torch.allclose(mixed, expected, atol=1e-4)


def test_categories_are_kept_for_evaluation_or_learned():
    names = ["bowl", "vase", "giraffe", "elephant", "umbrella"]
    kept = [name for name in names if is_for_evaluation(name)]
    assert kept == ["bowl", "vase"]


def test_no_question_of_a_public_evaluation_is_copied():
    path = Path(__file__).parents[2] / "shared" / "data" / "eval_questions.zip"
    if not path.is_file():
        pytest.skip("the data pack is not here")
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if "llava" in n.lower() and n.endswith("jsonl")]
        asked = {
            line.split('"text": "', 1)[1].split('"', 1)[0].lower()
            for name in names
            for line in archive.read(name).decode().splitlines()
            if '"text": "' in line
        }
    taught = {question.lower() for _, turns in many_talks(2000) for question, _ in turns}
    assert not asked & taught
