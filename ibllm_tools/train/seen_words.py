"""The words of questions about media, to be put together, and of answers that say too little.

Each list is a part of a question; `talk_seen` joins them. Knows no facts.
"""

from __future__ import annotations

LOOKS = ("picture", "photo", "image", "video", "clip", "frame", "attachment", "file", "snapshot",
         "depth map")  # fmt: skip
SOUNDS = ("sound", "audio", "recording", "clip", "noise", "audio clip", "sound file")
SHAPES = ("shape", "3D model", "point cloud", "model", "3D shape", "object", "scan")
THINGS = ("thing", "object", "item", "one")
KIND_WORDS = {
    "animal": ("animal", "creature", "living thing"),
    "human": ("human", "kind of being", "living thing"),
    "vehicle": ("vehicle", "means of transport"),
    "device": ("device", "machine", "thing"),
    "furniture": ("piece of furniture", "thing"),
    "household object": ("household object", "thing", "object"),
    "musical instrument": ("instrument", "musical instrument"),
    "part of nature": ("part of nature", "thing"),
    "plant": ("plant", "living thing"),
    "building": ("building", "structure"),
}

# (question, answer): {m} is a word for the medium, {a} the phrase of what is seen.
THIS_IS, IT_IS = "This is {a}.", "It is {a}."
ASK_IT = (
    ("What is this?", THIS_IS), ("What is this?", IT_IS), ("What is it?", IT_IS),
    ("What is that?", "That is {a}."), ("What's this?", THIS_IS), ("What's that?", "That is {a}."),
    ("What's it?", IT_IS), ("What have we here?", "We have {a} here."),
    ("What do we have here?", "We have {a} here."), ("What is here?", "Here is {a}."),
    ("What did I send you?", "You sent me {a}."), ("What am I showing you?", "You show me {a}."),
    ("Tell me what this is.", THIS_IS), ("Can you tell me what this is?", THIS_IS),
    ("Could you tell me what that is?", "That is {a}."), ("Do you know what this is?", THIS_IS),
    ("Any idea what this is?", THIS_IS), ("Guess what this is.", THIS_IS),
    ("Can you guess what it is?", IT_IS), ("I want to know what this is.", THIS_IS),
    ("I wonder what this is.", THIS_IS), ("Say what this is.", THIS_IS),
    ("Please identify this.", THIS_IS), ("Identify it.", IT_IS), ("Can you identify it?", IT_IS),
    ("Name this.", THIS_IS), ("Name it.", IT_IS), ("Name the thing.", IT_IS),
    ("What would you call this?", "I would call this {a}."), ("What might this be?", THIS_IS),
    ("What could it be?", IT_IS), ("What is this called?", "This is called {a}."),
    ("What is it called?", "It is called {a}."), ("What is the name of this?", THIS_IS),
    ("What is this thing?", THIS_IS), ("What thing is this?", THIS_IS),
    ("What object is this?", THIS_IS), ("Do you recognise this?", "Yes, this is {a}."),
    ("Can you recognize it?", "Yes, it is {a}."), ("This is what?", THIS_IS),
    ("What do you make of this?", THIS_IS), ("What is attached?", "It is {a}."),
    ("What do you think it is?", "I think it is {a}."), ("What do you think this is?", THIS_IS),
)  # fmt: skip
ASK_LOOK = (
    ("What do you see?", "I see {a}."), ("What can you see?", "I see {a}."),
    ("What do you see here?", "I see {a}."), ("What do you see in this {m}?", "I see {a}."),
    ("What can you see in the {m}?", "I see {a}."), ("What is visible here?", "I see {a}."),
    ("What do you notice?", "I notice {a}."), ("Tell me what you see.", "I see {a}."),
    ("What are you looking at?", "I am looking at {a}."), ("What is there to see?", "I see {a}."),
    ("What is in the {m}?", "The {m} shows {a}."), ("What is in this {m}?", "The {m} shows {a}."),
    ("What's in the {m}?", "The {m} shows {a}."), ("What is on the {m}?", "The {m} shows {a}."),
    ("What does the {m} show?", "The {m} shows {a}."), ("What is this {m} of?", THIS_IS),
    ("What does this {m} show?", "The {m} shows {a}."), ("What is this a {m} of?", THIS_IS),
    ("What can be seen in the {m}?", "The {m} shows {a}."), ("What is shown here?", THIS_IS),
    ("What is shown in the {m}?", "The {m} shows {a}."), ("What is pictured?", THIS_IS),
    ("What does the {m} contain?", "The {m} shows {a}."), ("Caption this {m}.", "{M} of {a}."),
    ("Give a caption for the {m}.", "{M} of {a}."), ("Generate caption of this {m}", "{M} of "
     "{a}."), ("What am I looking at?", "You are looking at {a}."),
    ("Which object is in the {m}?", "The {m} shows {a}."), ("What is the subject of this {m}?",
     "The {m} shows {a}."), ("What is the main object in the {m}?", "The {m} shows {a}."),
    ("Can you see what is in the {m}?", "Yes, I see {a}."), ("Write a caption.", "{M} of {a}."),
)  # fmt: skip
ASK_SOUND = (
    ("What do you hear?", "I hear {a}."), ("What can you hear?", "I hear {a}."),
    ("What do you hear in this {m}?", "I hear {a}."), ("Tell me what you hear.", "I hear {a}."),
    ("What can you hear in the {m}?", "I hear {a}."), ("What am I hearing?", "You hear {a}."),
    ("What sound is this?", "This sounds like {a}."), ("What is this sound?", "This sounds like "
     "{a}."), ("What noise is this?", "This sounds like {a}."),
    ("What does this sound like?", "This sounds like {a}."),
    ("What is making this {m}?", IT_IS), ("What makes this {m}?", IT_IS),
    ("What made that {m}?", IT_IS), ("Who or what makes this {m}?", IT_IS),
    ("Where does this {m} come from?", "It comes from {a}."), ("What is the source of this {m}?",
     "It is {a}."), ("What is in the {m}?", "I hear {a}."), ("What is this a {m} of?", THIS_IS),
    ("What produces this {m}?", IT_IS), ("Whose sound is it?", "It is the sound of {a}."),
    ("What is to be heard?", "I hear {a}."), ("Identify the {m}.", "It is the sound of {a}."),
)  # fmt: skip
ASK_SHAPE = (
    ("What is this {m}?", THIS_IS), ("What {m} is this?", THIS_IS),
    ("What shape is this?", "This is the shape of {a}."), ("What is this shape?", "This is the "
     "shape of {a}."), ("What does this {m} show?", "The {m} shows {a}."),
    ("What does the {m} look like?", "It looks like {a}."), ("What has this shape?", "This is the "
     "shape of {a}."), ("What is this a {m} of?", THIS_IS), ("What does it look like?", "It looks "
     "like {a}."), ("Which object has this shape?", "It is {a}."),
    ("What does the {m} represent?", "The {m} shows {a}."), ("Identify this {m}.", THIS_IS),
)  # fmt: skip
ASK_ALL = (
    ("What do you see and hear?", "I notice {a}."), ("What do you see or hear?", "I notice {a}."),
    ("What do you perceive?", "I notice {a}."), ("What do you sense?", "I notice {a}."),
    ("What do these show?", "They show {a}."), ("What are these?", "These show {a}."),
    ("What is in the picture and in the sound?", "I notice {a}."), ("What things are here?",
     "I notice {a}."), ("What can you find here?", "I find {a}."), ("Name everything.", "I notice "
     "{a}."), ("Which things do you notice?", "I notice {a}."), ("List what is here.", "Here is "
     "{a}."), ("What is in both files?", "I notice {a}."), ("Name all the things that you see and "
     "hear.", "I notice {a}."), ("What two things are these?", "These show {a}."),
)  # fmt: skip
ASK_WORD = (
    "Name it in one word.", "What is this in one word?", "One word: what is this?",
    "In a word, what is it?", "Answer with one word: what is this?", "Just the name: what is it?",
    "What is this? Answer in one word.", "Use a single word to name this.", "Label this.",
    "What is this? One word only.", "Give me its name only.",
)  # fmt: skip
ASK_KIND = (
    "Which {k} is this?", "What {k} is this?", "What {k} is it?", "Which {k} do you see?",
    "What {k} do you hear?", "Which {k} is in the {m}?", "What kind of {k} is this?",
    "What {k} is shown?", "Name the {k}.", "Which {k} makes this sound?", "What {k} could it be?",
)  # fmt: skip
ASK_MORE = (
    "Describe the {m}.", "Describe this {m}.", "Describe this.", "Describe it.", "Describe what you "
    "see.", "Describe what you hear.", "Tell me about this {m}.", "Tell me about this.",
    "Please describe the {m} in detail.", "Can you describe it?", "What can you say about this?",
    "Explain what this is.", "Give a short description.", "Describe the content of the {m}.",
)  # fmt: skip

LOOKS_ZH = ("图片", "照片", "图", "画面", "图像", "视频", "相片", "截图", "附件", "文件")
SOUNDS_ZH = ("声音", "录音", "音频", "音频片段", "声响")
SHAPES_ZH = ("形状", "三维模型", "点云", "模型", "立体形状")
ASK_IT_ZH = (
    ("这是什么？", "这是{z}。"), ("它是什么？", "它是{z}。"), ("那是什么？", "那是{z}。"),
    ("这个是什么？", "这是{z}。"), ("这是什么东西？", "这是{z}。"), ("这个东西是什么？", "这是{z}。"),
    ("请告诉我这是什么。", "这是{z}。"), ("能告诉我这是什么吗？", "这是{z}。"),
    ("你知道这是什么吗？", "这是{z}。"), ("猜猜这是什么。", "这是{z}。"), ("这叫什么？", "这叫{z}。"),
    ("它叫什么？", "它叫{z}。"), ("说出它的名字。", "它是{z}。"), ("这是啥？", "这是{z}。"),
    ("这是个什么？", "这是{z}。"), ("你认得这个吗？", "认得，这是{z}。"), ("识别一下。", "这是{z}。"),
    ("请辨认这个。", "这是{z}。"), ("你觉得这是什么？", "我觉得这是{z}。"), ("这可能是什么？", "这是{z}。"),
    ("这里有什么？", "这里有{z}。"), ("我给你的是什么？", "你给我的是{z}。"), ("这个怎么称呼？", "这叫{z}。"),
    ("我发给你的是什么？", "你发给我的是{z}。"), ("说说这是什么。", "这是{z}。"), ("什么东西？", "这是{z}。"),
)  # fmt: skip
ASK_LOOK_ZH = (
    ("你看到了什么？", "我看到了{z}。"), ("你看见什么了？", "我看到了{z}。"), ("能看到什么？", "我看到了{z}。"),
    ("{m}里有什么？", "{m}里有{z}。"), ("{m}里是什么？", "{m}里是{z}。"), ("{m}中有什么？", "{m}里有{z}。"),
    ("这张{m}里有什么？", "{m}里有{z}。"), ("{m}上是什么？", "{m}上是{z}。"), ("{m}显示了什么？", "{m}里有{z}。"),
    ("这{m}里面有什么东西？", "{m}里有{z}。"), ("{m}里能看到什么？", "{m}里有{z}。"),
    ("告诉我你看到了什么。", "我看到了{z}。"), ("{m}的内容是什么？", "{m}里有{z}。"), ("我在看什么？", "你在看{z}。"),
    ("给这张{m}写个标题。", "一张{z}的{m}。"), ("{m}的主体是什么？", "{m}里是{z}。"), ("你注意到什么？", "我注意到{z}。"),
    ("{m}里的东西是什么？", "{m}里是{z}。"), ("请看{m}，这是什么？", "这是{z}。"), ("{m}展示的是什么？", "{m}里是{z}。"),
)  # fmt: skip
ASK_SOUND_ZH = (
    ("你听到了什么？", "我听到了{z}。"), ("你听见什么了？", "我听到了{z}。"), ("能听到什么？", "我听到了{z}。"),
    ("这是什么声音？", "这是{z}的声音。"), ("这是什么的声音？", "这是{z}的声音。"), ("{m}里有什么？", "我听到了{z}。"),
    ("什么在发出这个声音？", "是{z}。"), ("是什么发出的声音？", "是{z}。"), ("这{m}是什么发出来的？", "是{z}。"),
    ("这段{m}里是什么？", "我听到了{z}。"), ("听起来像什么？", "听起来像{z}。"), ("告诉我你听到了什么。", "我听到了{z}。"),
    ("这个声音来自什么？", "来自{z}。"), ("{m}的来源是什么？", "是{z}。"), ("这是谁的声音？", "这是{z}的声音。"),
)  # fmt: skip
ASK_SHAPE_ZH = (
    ("这是什么形状？", "这是{z}的形状。"), ("这个{m}是什么？", "这是{z}。"), ("{m}表示什么？", "这是{z}的形状。"),
    ("这是什么的{m}？", "这是{z}的{m}。"), ("它看起来像什么？", "它看起来像{z}。"), ("什么东西是这个形状？", "是{z}。"),
    ("这个{m}像什么？", "它看起来像{z}。"), ("请识别这个{m}。", "这是{z}。"),
)  # fmt: skip
ASK_ALL_ZH = (
    ("你看到和听到了什么？", "我注意到{z}。"), ("你看到或听到了什么？", "我注意到{z}。"), ("你感觉到了什么？", "我注意到{z}。"),
    ("这些是什么？", "这些是{z}。"), ("这里都有什么？", "这里有{z}。"), ("说出所有的东西。", "这里有{z}。"),
    ("图片和声音里有什么？", "我注意到{z}。"), ("有哪些东西？", "这里有{z}。"), ("这两样是什么？", "这些是{z}。"),
    ("你发现了什么？", "我发现了{z}。"), ("请把看到和听到的都说出来。", "我注意到{z}。"), ("列出这里的东西。", "这里有{z}。"),
)  # fmt: skip
ASK_WORD_ZH = (
    "用一个词说这是什么。", "只说名字：这是什么？", "用一个词回答：这是什么？", "这是什么？只回答一个词。",
    "一个词：它是什么？", "只要名称。", "这是什么？用一个词回答。",
)  # fmt: skip
ASK_KIND_ZH = (
    "这是什么{k}？", "这是哪种{k}？", "这是哪一种{k}？", "{m}里是什么{k}？", "你看到了什么{k}？", "你听到的是什么{k}？",
    "是什么{k}在发出声音？", "说出这种{k}的名字。", "它是什么{k}？",
)  # fmt: skip
ASK_MORE_ZH = (
    "请描述这张{m}。", "描述一下{m}。", "描述一下。", "请描述你看到的东西。", "请描述你听到的东西。", "介绍一下这张{m}。",
    "请详细描述{m}。", "说说这个。", "简单描述一下。", "描述一下这是什么。", "讲讲{m}的内容。",
)  # fmt: skip

UNKNOWN = (
    "I am not sure what this is.",
    "I am not sure what this is. I do not know it.",
    "I do not know what this is.",
    "I am not sure. I cannot tell what this is.",
)
UNKNOWN_ZH = ("我不确定这是什么。", "我不知道这是什么。", "我不确定，我认不出这是什么。")
NOTHING = (
    "I do not see or hear anything. Please show me something.",
    "There is nothing attached. Please give me a picture, a sound or a shape.",
)
NOTHING_ZH = (
    "我没有看到或听到任何东西，请给我一张图片或一段声音。",
    "这里没有附件，请给我看点什么。",
)
HAPPENING = (
    "What could be happening?", "What is happening?", "What might be going on here?",
    "What is going on?", "What is happening here?", "What could be going on in the {m}?",
    "What is happening in the {m}?", "What is it doing?",
)  # fmt: skip
HAPPENING_ZH = (
    "可能发生了什么？", "正在发生什么？", "这里可能在发生什么？", "发生了什么事？", "{m}里可能在发生什么？", "它在做什么？",
)  # fmt: skip
EXISTS = (
    "Is there {n}?", "Is there {n} here?", "Is there {n} in the {m}?", "Is there {n} in this {m}?",
    "Is {n} in the {m}?", "Is {n} visible?", "Is this {n}?", "Is it {n}?", "Is that {n}?",
    "Do you see {n}?", "Can you see {n}?", "Can you see {n} in the {m}?", "Do you hear {n}?",
    "Can you hear {n}?", "Does the {m} show {n}?", "Does this {m} contain {n}?", "Would you say "
    "this is {n}?", "Are you sure this is {n}?", "Could this be {n}?", "Does it look like {n}?",
    "Does it sound like {n}?", "Is the thing in the {m} {n}?", "I think this is {n}. Am I right?",
    "Is this a {m} of {n}?", "Tell me whether there is {n} in the {m}.", "This is {n}, right?",
    "Is there {n} in the {m}? Answer yes or no.", "Is this {n}? Yes or no?", "Do you notice {n}?",
    "Is there any sign of {n}?", "Does {n} appear in the {m}?",
)  # fmt: skip
EXISTS_ZH = (
    "这里有{n}吗？", "{m}里有{n}吗？", "这是{n}吗？", "它是{n}吗？", "你看到{n}了吗？", "你听到{n}了吗？",
    "有没有{n}？", "{m}里有没有{n}？", "这是不是{n}？", "能看到{n}吗？", "能听到{n}吗？", "{m}中有{n}吗？",
    "图中有{n}吗？", "你确定这是{n}吗？", "这像{n}吗？", "我觉得这是{n}，对吗？", "这张{m}里是{n}吗？",
    "{m}里有{n}吗？请回答是或否。", "{m}上能看到{n}吗？", "这是{n}，对不对？", "请问有{n}吗？", "这个声音是{n}吗？",
)  # fmt: skip
COUNT = (
    "How many {n} are there?", "How many {n} do you see?", "Can you count the {n}?",
    "Count the {n}.", "How many {n} are in the {m}?", "What is the number of {n}?",
    "How many {n} can you hear?", "How many are there?", "How many of them are there?",
    "Is there more than one?", "What number of {n} is in the {m}?", "Are there two {n}?",
)  # fmt: skip
COUNT_ZH = (
    "有多少{n}？", "一共有几个{n}？", "{m}里有多少{n}？", "数一数有多少{n}。", "你看到几个{n}？", "有几个？", "数量是多少？",
)  # fmt: skip
DETAILS = (
    ("What colour is it?", "colours"), ("What color is this?", "colours"),
    ("Which colours do you see?", "colours"), ("What does the text say?", "text"),
    ("Can you read the text?", "text"), ("Who is this?", "names"), ("What is the brand?", "brands"),
    ("Is it on the left or on the right?", "positions"), ("Where in the {m} is it?", "positions"),
    ("How old is it?", "ages"), ("When was this {m} taken?", "dates"),
)  # fmt: skip
DETAILS_ZH = (
    ("它是什么颜色的？", "颜色"), ("这是什么颜色？", "颜色"), ("上面写了什么字？", "文字"), ("它在左边还是右边？", "位置"),
    ("这是谁？", "名字"), ("它多大年纪了？", "年龄"), ("这是什么牌子？", "品牌"), ("什么时候拍的？", "时间"),
)  # fmt: skip
