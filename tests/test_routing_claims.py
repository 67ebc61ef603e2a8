"""What follows from results is worked out by code, or not at all where a question is not clear."""

import pytest

from ibllm_tools.routing import asked_nouns, conclude, conclude_speech

PLACES = {"dog": ["left", "top right", "middle"], "cat": ["bottom"], "car": ["right", "left"]}
PLACES_ZH = {"dog": ["左", "右上", "中间"], "cat": ["下"], "car": ["右", "左"]}


@pytest.mark.parametrize(
    ("question", "so"),
    [
        ("Are there exactly two dogs?", "no"),
        ("Are there 3 puppies in the picture?", "yes"),
        ("I count 3 dogs. Is that right?", "yes"),
        ("Someone says there are two cats. Are there?", "no"),
        ("Two cars, yes or no?", "yes"),
        ("Only one cat, right?", "yes"),
        ("Are there at least three dogs?", "yes"),
        ("Are there fewer than two cars?", "no"),
        ("Is the number of dogs above three?", "no"),
        ("Please check that there are exactly two cars.", "yes"),
        ("Are there more dogs than cats?", "yes"),
        ("Do the cats outnumber the dogs?", "no"),
        ("Are there as many cats as cars?", "no"),
        ("Which are more, the dogs or the cats?", "more dogs"),
        ("Do you see more cats, or more cars?", "more cars"),
        ("Is there any bird?", "no"),
        ("Does the picture show a cat?", "yes"),
        ("Is there a cat on the left?", "no"),
        ("Is there a dog in the upper right corner?", "yes"),
        ("Is the dog at the top?", "yes"),
        ("How many dogs are there, and are there more cats than cars?", "no"),
        ("Are there 3 dogs, and what is said?", "yes"),
    ],
)
def test_claims_about_counts_and_places(question, so):
    assert conclude(question, PLACES) == so


@pytest.mark.parametrize(
    "question",
    [
        "How many dogs are there?",
        "Where is the dog, and how many cats are there?",
        "Can you count the dogs?",
        "Can you tell me where the dog is?",
        "Three dogs or four?",
        "Just one cat, or is there a second?",
        "Is the dog left of the cat?",
        "Are all dogs on the left?",
        "Is there no dog?",
        "Is it nice?",
        "",
        "图里有几只狗？",
        "狗在哪里？",
        "图里有三只狗还是四只狗？",
    ],
)
def test_nothing_follows_where_nothing_is_claimed(question):
    assert conclude(question, PLACES) == ""


@pytest.mark.parametrize(
    ("question", "so"),
    [
        ("图里有三只狗，对吗？", "是的"),
        ("照片里的汽车是不是三辆？", "不是"),
        ("狗超过2个吗？", "是的"),
        ("里面有至少四只狗吗？", "不是"),
        ("狗比猫多吗？", "是的"),
        ("图中的狗和汽车一样多吗？", "不是"),
        ("狗和猫哪个多？", "狗更多"),
        ("猫多还是汽车多？", "汽车更多"),
        ("图里有没有鸟？", "不是"),
        ("图的左边有猫吗？", "不是"),
        ("右上角有狗吗？", "是的"),
    ],
)
def test_claims_in_chinese(question, so):
    assert conclude(question, PLACES_ZH) == so


@pytest.mark.parametrize(
    ("question", "so"),
    [
        ("Does the voice say two?", "yes"),
        ("Do you hear the number 9?", "no"),
        ("Is four among the spoken words?", "no"),
        ('Is "two five" part of the message?', "yes"),
        ('Is "one five" part of the message?', "no"),
        ("What is the first word?", 'the first is "one"'),
        ("With which word does the message end?", 'the last is "five"'),
        ("Does it begin with five?", "no"),
        ("How many words are said?", "3 words"),
        ("Is anyone speaking?", "yes"),
        ("How many dogs are there, and is the word two said?", "yes"),
        ("What is said?", ""),
        ("Did they say two or three?", ""),
        ("Do you understand what is said?", ""),
        ("Are there 3 dogs, and what is said?", ""),
        ("里面说到two了吗？", "是的"),
        ("里面说到三了吗？", "不是"),
        ("第一个词是什么？", "第一个是“one”"),
        ("一共说了几个词？", "3个词"),
        ("说了哪几个数字？", ""),
        ("有人说话吗？", "是的"),
    ],
)
def test_what_follows_from_a_transcript(question, so):
    assert conclude_speech(question, "one two five") == so


def test_silence_says_no():
    assert conclude_speech("Is anyone speaking?", "") == "no"
    assert conclude_speech("Does the voice say two?", "") == "no"
    assert conclude_speech("What is the first word?", "") == ""


def test_a_thing_that_the_detector_does_not_know_gives_no_conclusion():
    assert conclude("Are there exactly two unicorns?", PLACES) == ""
    assert conclude("Is there a piano?", PLACES, ["dog", "cat"]) == ""


def test_who_speaks_is_not_looked_for():
    assert asked_nouns("How many dogs are there, and what does the man say?") == ["dog"]
    assert asked_nouns("What does the person in the recording say?") == []
    assert asked_nouns("图片里有几个猫？录音里的人说了什么？") == ["cat"]
    assert asked_nouns("How many people are there?") == ["person"]
