"""The page: its parts, their words, and what happens when someone acts.

```
composer (text, files) ── signature ── tray rows (weight, sensed as)
composer.submit ── ask ── chat, status        stop, clear, language, examples, camera
```
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media
from ibllm_tools.ui.asking import DIRECT, Answerer, Choices
from ibllm_tools.ui.labels import Labels, filled, heading, row_label, sense_choices, ways
from ibllm_tools.ui.look import SIGNATURE
from ibllm_tools.ui.talk import Talk, pictured
from ibllm_tools.ui.tray import AUTO, DEMO_MEDIA, MAX_FILES, Attached, Uploads
from ibllm_tools.ui.words import LANGUAGES, preferred_language, words_of

if TYPE_CHECKING:
    from ibllm_tools.ui.serving import UiSettings

EXAMPLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ex_photo", ("piano.jpg",)),
    ("ex_sound", ("sea.ogg",)),
    ("ex_shape", ("fish.ply",)),
    ("ex_video", ("dog.mp4",)),
    ("ex_mix", ("piano.jpg", "dog.ogg")),
)
SESSION_S = 6 * 3600
MAX_K, MAX_T, LONGEST, USUAL = 50, 100, 1024, 256
QUIET: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}


class Page:
    """The page's parts and what they do; one for all sessions."""

    def __init__(self, answerer: Answerer, uploads: Uploads, settings: UiSettings) -> None:
        """Build the page around a model."""
        self._answerer = answerer
        self._uploads = uploads
        self._settings = settings
        self._labels = Labels()
        with gr.Blocks(
            title="ibllm", analytics_enabled=False, delete_cache=(600, SESSION_S), fill_width=True
        ) as self.blocks:
            self._build()
            self._labels.begin(words_of("en"))
            self._wire()

    # parts

    def _build(self) -> None:
        self.talk = gr.State(Talk(), time_to_live=SESSION_S)
        self.waiting: Any = gr.State([], time_to_live=SESSION_S)
        with gr.Row(elem_id="head"):
            head = gr.HTML(padding=False)
            self.language = gr.Radio(list(LANGUAGES), value="en", elem_id="language")
        self._labels.add(head, lambda words: {"value": heading(words, self._settings.model)})
        self._labels.name(self.language, "language")
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                self._build_chat()
            with gr.Column(scale=3, min_width=290, elem_id="side"):
                self._build_settings()

    def _build_chat(self) -> None:
        self.chat = gr.Chatbot(
            height=480,
            elem_id="chat",
            buttons=["copy"],
            latex_delimiters=[],
            allow_tags=False,
            layout="bubble",
            allow_file_downloads=False,
        )
        self._labels.name(self.chat, "conversation")
        self._labels.name(self.chat, "placeholder", "placeholder")
        self._build_examples()
        self.composer = gr.MultimodalTextbox(
            sources=["upload", "microphone"],
            file_count="multiple",
            show_label=False,
            elem_id="composer",
            max_lines=6,
            max_plain_text_length=self._uploads.policy.max_chars,
        )
        self._labels.name(self.composer, "question")
        self._labels.name(self.composer, "ask", "placeholder")
        self.signature = gr.Textbox(visible="hidden")
        self.status = gr.HTML(elem_id="status", padding=False)

    def _build_examples(self) -> None:
        self.examples = []
        with gr.Row(elem_id="examples"):
            for key, _ in EXAMPLES:
                button = gr.Button(size="sm", min_width=100)
                self.examples.append(button)
                self._labels.name(button, key, "value")

    def _build_tray(self) -> None:
        self.rows, self.weights, self.senses = [], [], []
        with gr.Column(visible=False, elem_id="tray", min_width=0) as self.tray:
            title = gr.HTML(elem_classes="tray-title", padding=False)
            for _ in range(MAX_FILES):
                with gr.Column(visible=False, min_width=0) as row:
                    weight = gr.Slider(0.05, 2, 1, step=0.05, buttons=[])
                    sense = gr.Radio([AUTO], value=AUTO, visible=False)
                self.rows.append(row)
                self.weights.append(weight)
                self.senses.append(sense)
                self._labels.name(sense, "sensed_as")
        self._labels.name(title, "attachments", "value")

    def _build_settings(self) -> None:
        self._build_tray()
        self.clear = gr.Button(elem_id="clear", size="md")
        self.way = gr.Radio([DIRECT], value=DIRECT, elem_id="way")
        self._labels.name(self.clear, "clear", "value")
        self._labels.add(self.way, ways)
        with gr.Accordion(elem_id="cache") as cache:
            self._build_cache()
        with gr.Accordion(open=False, elem_id="camera") as camera:
            self.camera = gr.Image(
                sources=["webcam", "clipboard"], type="filepath", format="jpeg", height=240
            )
        with gr.Accordion(open=False, elem_id="answer") as answer:
            self.temperature = gr.Slider(0, 2, 0, step=0.05, buttons=[])
            self.max_tokens = gr.Slider(1, LONGEST, USUAL, step=1, buttons=[])
        parts = [cache, camera, self.camera, answer, self.temperature, self.max_tokens]
        keys = ["cache", "camera", "take", "answer", "temperature", "max_tokens"]
        for part, key in zip(parts, keys, strict=True):
            self._labels.name(part, key)

    def _build_cache(self) -> None:
        sensor = self._answerer.sensor
        usual, is_there = sensor.settings(), sensor.cache() is not None
        self.cache_on = gr.Checkbox(
            is_there and sensor.on_by_default(), interactive=is_there, elem_id="cache-on"
        )
        self.k = gr.Slider(1, MAX_K, usual.k, step=1, buttons=[])
        self.t = gr.Slider(0, MAX_T, usual.temperature, step=1, buttons=[])
        self.alpha = gr.Slider(0, 1, usual.weight, step=0.05, buttons=[])
        self._labels.name(self.cache_on, "cache_on")
        self._labels.name(self.cache_on, "cache_info" if is_there else "cache_none", "info")
        for part, key in ((self.k, "k"), (self.t, "t"), (self.alpha, "alpha")):
            self._labels.name(part, key)

    # events

    def _wire(self) -> None:
        said = self._labels.parts
        self.blocks.load(_preferred, None, self.language, **QUIET).then(
            self._speak, [self.language, self.waiting], [*said, *self.weights], **QUIET
        )
        self.language.input(
            self._speak, [self.language, self.waiting], [*said, *self.weights], **QUIET
        )
        # Typing asks the server nothing: files are looked at when they change.
        self.composer.change(
            None, self.composer, self.signature, js=SIGNATURE, show_progress="hidden"
        )
        known = [self.composer, self.waiting, self.language, *self.weights]
        tray = [self.tray, self.waiting, *self.rows, *self.weights, *self.senses]
        self.signature.change(self._inspect, known, tray, trigger_mode="always_last", **QUIET)
        run = self._wire_asking()
        # What is under way ends first: a piece of it must not come after what is shown then.
        self.composer.stop(None, cancels=[run], api_visibility="private").then(
            _stopped, self.talk, [self.chat, self.composer, self.status], **QUIET
        )
        anew = [self.talk, self.chat, self.composer, self.status]
        for cleared in (self.clear.click, self.chat.clear):
            cleared(None, cancels=[run], api_visibility="private").then(_clear, None, anew, **QUIET)
        taken = [self.camera, self.composer]
        # Gradio tells of no change that a change brings about.
        self.camera.change(_join, taken, taken, **QUIET).then(self._inspect, known, tray, **QUIET)
        for button, (key, names) in zip(self.examples, EXAMPLES, strict=True):
            button.click(_example(key, names), self.language, self.composer, **QUIET)

    def _wire_asking(self) -> Any:
        how = [self.way, self.cache_on, self.k, self.t, self.alpha]
        how += [self.temperature, self.max_tokens, self.language]
        return self.composer.submit(
            self._ask,
            [self.composer, self.talk, self.waiting, *how, *self.weights, *self.senses],
            [self.chat, self.composer, self.status],
            show_progress="hidden",
            concurrency_limit=self._settings.max_running,
            api_visibility="private",
        )

    def _speak(self, language: str, waiting: list[Attached]) -> list[Any]:
        """Say everything in a language."""
        words = words_of(language)
        names = [gr.update(label=row_label(held, words)) for held in waiting]
        return [*self._labels.updates(words), *filled(names, gr.skip())]

    def _inspect(
        self, message: dict[str, Any], waiting: list[Attached], language: str, *weights: float
    ) -> list[Any]:
        """Show a row for every attached file; a file keeps its weight when others go."""
        words, paths = words_of(language), message["files"][:MAX_FILES]
        held = {attached.path: attached for attached in waiting}
        weighed = dict(zip(held, weights, strict=False))
        new = [held.get(path) or self._uploads.inspect(path) for path in paths]
        hide = gr.update(visible=False)
        rows = [gr.update(visible=True) for _ in new]
        sliders = [
            gr.update(label=row_label(one, words), value=weighed.get(one.path, 1.0)) for one in new
        ]
        senses = [sense_choices(one, words, fresh=one.path not in held) for one in new]
        rest = [*filled(rows, hide), *filled(sliders, gr.skip()), *filled(senses, hide)]
        return [gr.update(visible=bool(new)), new, *rest]

    async def _ask(
        self, message: dict[str, Any], talk: Talk, waiting: list[Attached], *given: Any
    ) -> AsyncIterator[list[Any]]:
        """Answer; every piece is shown as it comes."""
        way, cache_on, k, t, alpha, temperature, max_tokens, language, *rows = given
        usual = self._answerer.sensor.settings()
        cache = replace(usual, k=int(k), temperature=t, weight=alpha) if cache_on else False
        choices = Choices(way, cache, temperature, int(max_tokens), language)
        words, question, files = choices.words, message["text"].strip(), message["files"]
        if not question and not files:
            yield [gr.skip(), gr.skip(), words["empty"]]
            return
        chosen = {
            held.path: (weight, sense)
            for held, weight, sense in zip(waiting, rows, rows[MAX_FILES:], strict=False)
        }
        try:
            media, pictures = await asyncio.to_thread(self._read, files, chosen, words)
        except MediaError as error:
            talk.problem(words, str(error))
            yield [talk.shown, gr.skip(), ""]
            return
        talk.show([*pictures, *([question] if question else [])], "user")
        yield [talk.shown, _busy(), words["working"]]
        line = ""
        async for line in self._answerer.answer(talk, question or words["what"], media, choices):
            yield [talk.shown, gr.skip(), line or words["working"]]
        yield [talk.shown, _ready(), line]

    def _read(
        self, files: list[str], chosen: dict[str, tuple[float, str]], words: dict[str, str]
    ) -> tuple[list[Media], list[Any]]:
        """Read what is attached, and make what the page shows of it.

        Raises:
            MediaError: A file cannot be read, or there are too many.
        """
        if len(files) > MAX_FILES:
            name = Path(files[MAX_FILES]).name
            raise MediaError(words["too_many"].format(name=name, limit=MAX_FILES))
        media, pictures = [], []
        for path in files:
            weight, sense = chosen.get(path, (1.0, AUTO))
            sensed: Any = None if sense == AUTO else sense
            one = self._uploads.read(path, sensed, weight)
            media.append(one)
            pictures.append(pictured(one, path, words, self._uploads.policy))
        return media, pictures


def _preferred(request: gr.Request) -> str:
    """The language that the browser asks for."""
    return preferred_language(request.headers.get("accept-language"))


def _busy() -> Any:
    return gr.update(value={"text": "", "files": []}, submit_btn=False, stop_btn=True)


def _ready() -> Any:
    return gr.update(submit_btn=True, stop_btn=False)


def _stopped(talk: Talk) -> list[Any]:
    """All that was said until someone stopped it."""
    return [talk.shown, _ready(), ""]


def _clear() -> list[Any]:
    """A new conversation; what is still under way keeps the old one."""
    empty = {"text": "", "files": []}
    return [Talk(), [], gr.update(value=empty, submit_btn=True, stop_btn=False), ""]


def _join(taken: str | None, message: dict[str, Any]) -> list[Any]:
    """Move a photo from the camera to what is attached."""
    if taken is None:
        return [gr.skip(), gr.skip()]
    return [None, {"text": message["text"], "files": [*message["files"], taken]}]


def _example(key: str, names: tuple[str, ...]) -> Callable[[str], dict[str, Any]]:
    """Put an example's question and files where a person would."""
    files = [str(DEMO_MEDIA / name) for name in names]

    def put(language: str) -> dict[str, Any]:
        return {"text": words_of(language)[f"{key}_q"], "files": files}

    return put
