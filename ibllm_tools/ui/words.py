"""The page's words in English and Chinese; a test holds both to the same keys."""

from __future__ import annotations

LANGUAGES = (("English", "en"), ("中文", "zh"))

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Ask about what you see, hear and hold",
        "subtitle": "Photos, sounds, videos, 3D shapes and any mix of them. Model: {model}. "
        "Nothing leaves this machine.",
        "language": "Language",
        "conversation": "Conversation",
        "placeholder": "Attach something, or try an example",
        "question": "Your question",
        "ask": "Ask, and attach or paste media",
        "attachments": "Attached",
        "weight": "{name} ({modality}): weight",
        "sensed_as": "Sensed as",
        "camera": "Camera and clipboard",
        "take": "Take a photo, or paste a picture",
        "how": "How to answer",
        "direct": "Directly",
        "tools": "With tools",
        "perception": "Routed",
        "how_info": "With tools, the model asks experts itself: a detector draws boxes, a "
        "recognizer writes down speech. Routed: a router picks them.",
        "cache": "Visual cache",
        "cache_on": "Use the visual cache",
        "cache_info": "Pulls what is sensed towards the most similar pictures it knows.",
        "cache_none": "This model has no visual cache.",
        "k": "k: pictures",
        "t": "t: sharpness",
        "alpha": "α: pull",
        "answer": "Answer",
        "temperature": "Temperature (0: always the likeliest)",
        "max_tokens": "Longest answer, in tokens",
        "clear": "New conversation",
        "examples": "Examples",
        "neighbours": "What the visual cache pulled in",
        "looks_like": "looks like",
        "similarity": "similarity",
        "share": "share",
        "steps": "Steps",
        "thinking": "Thinking",
        "shape": "{name} · drag, or press arrow keys, to turn",
        "problem": "That did not work",
        "inside": "Something failed inside ({kind}). The terminal that runs this page says more.",
        "too_many": "{name} and later files: at most {limit} at once; send the rest afterwards.",
        "empty": "Write a question, or attach something.",
        "working": "Answering…",
        "what": "What is this?",
        "timing": "first words after {first:.2f} s · {rate:.0f} tokens/s",
        "image": "picture",
        "video": "video",
        "audio": "sound",
        "depth": "depth",
        "thermal": "heat",
        "imu": "motion",
        "point": "3D shape",
        "text": "text",
        "unread": "cannot be read",
        "ex_photo": "A photo",
        "ex_photo_q": "What do you see?",
        "ex_sound": "A sound",
        "ex_sound_q": "What makes this sound?",
        "ex_shape": "A 3D shape",
        "ex_shape_q": "What is this object?",
        "ex_video": "A video",
        "ex_video_q": "What is in the video?",
        "ex_mix": "A photo and a sound",
        "ex_mix_q": "What could be happening?",
    },
    "zh": {
        "title": "看到的、听到的、手里的，都可以问",
        "subtitle": "照片、声音、视频、三维形状及其任意组合。模型：{model}。数据不会离开本机。",
        "language": "语言",
        "conversation": "对话",
        "placeholder": "添加一个文件，或试试示例",
        "question": "你的问题",
        "ask": "提问，也可以添加或粘贴媒体",
        "attachments": "附件",
        "weight": "{name}（{modality}）：权重",
        "sensed_as": "感知方式",
        "camera": "相机与剪贴板",
        "take": "拍照，或粘贴图片",
        "how": "回答方式",
        "direct": "直接回答",
        "tools": "使用工具",
        "perception": "分派专家",
        "how_info": "使用工具：模型自己调用专家，画出物体框或写下语音。分派专家：由路由器挑选。",
        "cache": "视觉缓存",
        "cache_on": "使用视觉缓存",
        "cache_info": "把感知到的内容拉向缓存中最相似的图片。",
        "cache_none": "此模型没有视觉缓存。",
        "k": "k：图片数",
        "t": "t：锐度",
        "alpha": "α：拉力",
        "answer": "回答",
        "temperature": "温度（0：总取最可能的词）",
        "max_tokens": "回答最长词元数",
        "clear": "新对话",
        "examples": "示例",
        "neighbours": "视觉缓存找到的图片",
        "looks_like": "看起来像",
        "similarity": "相似度",
        "share": "占比",
        "steps": "步骤",
        "thinking": "思考",
        "shape": "{name} · 拖动或按方向键旋转",
        "problem": "没有成功",
        "inside": "内部出错（{kind}）。运行此页面的终端有更多信息。",
        "too_many": "{name} 及之后的文件：一次最多 {limit} 个，其余请稍后发送。",
        "empty": "请写一个问题，或添加一个文件。",
        "working": "正在回答…",
        "what": "这是什么？",
        "timing": "{first:.2f} 秒后出现首词 · 每秒 {rate:.0f} 个词元",
        "image": "图片",
        "video": "视频",
        "audio": "声音",
        "depth": "深度",
        "thermal": "热像",
        "imu": "运动",
        "point": "三维形状",
        "text": "文字",
        "unread": "无法读取",
        "ex_photo": "一张照片",
        "ex_photo_q": "你看到了什么？",
        "ex_sound": "一段声音",
        "ex_sound_q": "这是什么声音？",
        "ex_shape": "一个三维形状",
        "ex_shape_q": "这是什么物体？",
        "ex_video": "一段视频",
        "ex_video_q": "视频里有什么？",
        "ex_mix": "一张照片和一段声音",
        "ex_mix_q": "可能发生了什么？",
    },
}


def words_of(language: str | None) -> dict[str, str]:
    """The words of a language; English where it is none of ours."""
    return WORDS.get(language or "en", WORDS["en"])


def preferred_language(accepted: str | None) -> str:
    """Choose a language by an Accept-Language header: the first that is ours.

    ```python
    assert preferred_language("fr, zh-CN;q=0.8, en;q=0.5") == "zh"
    ```
    """
    for entry in (accepted or "").split(","):
        code = entry.split(";")[0].strip().lower().split("-")[0]
        if code in WORDS:
            return code
    return "en"
