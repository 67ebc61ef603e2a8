"""A chat: lines in, answers and effects of commands out, everything kept in a thread."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, HumanMessage

from ibllm_tools.attachments.senses import senses_of
from ibllm_tools.errors import ConfigurationError, IbllmError
from ibllm_tools.media import Media, load
from ibllm_tools.terminal import attached, cache_words, listing, saving
from ibllm_tools.terminal.attached import Shown, Waiting, ids_of
from ibllm_tools.terminal.brains import MEDIA_AGENT, Brains
from ibllm_tools.terminal.commands import COMMANDS, Command, described, read_line
from ibllm_tools.terminal.keyboard import interruptible, without_echo
from ibllm_tools.terminal.screen import Screen
from ibllm_tools.terminal.talking import change, history, mend, talk

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from ibllm_tools.attachments.records import Attachment
    from ibllm_tools.terminal.reading import Lines
    from ibllm_tools.terminal.settings import ChatSettings

_N_RECALLED = 4
_MAX_RECALLED = 300
_MAX_STEPS = 60
ReadFiles = Callable[[Sequence[str]], list[Media]]
"""From `FILE[:MODALITY][@WEIGHT]` to media; the person names the files."""


class Session:
    """One run of the chat."""

    def __init__(
        self,
        settings: ChatSettings,
        saver: BaseCheckpointSaver[Any],
        screen: Screen,
        read_files: ReadFiles,
    ) -> None:
        """Open nothing yet.

        Args:
            settings: What the chat begins with.
            saver: Keeps the threads.
            screen: What the person sees.
            read_files: Reads what the person attaches.
        """
        self._saver = saver
        self._screen = screen
        self._brains = Brains(settings, saver)
        self._plain = self._brains.plain()
        self._agent = settings.agent
        self._graph = self._brains.open(settings.agent)
        self._cache: cache_words.Cache = None
        self._waiting = Waiting()
        self._thread = listing.check_name(settings.thread)
        self._settings = settings
        self._read_files = read_files
        self._ended = False
        self._commands: dict[str, Callable[..., Awaitable[None]]] = {
            "attach": self._attach,
            "weight": self._weight,
            "detach": self._detach,
            "cache": self._set_cache,
            "agent": self._set_agent,
            "save": self._save,
            "new": self._new,
            "threads": self._threads,
            "thread": self._switch,
            "forget": self._forget,
            "help": self._help,
            "quit": self._quit,
        }

    async def run(self, lines: Lines, files: tuple[str, ...] = ()) -> None:
        """Take lines until they end, or until /quit."""
        await self._resume()
        if files:
            await self._guarded(self._attach(*files))
        while not self._ended:
            try:
                line = await lines.read()
            except KeyboardInterrupt:
                self._screen.notice("(Ctrl-D or /quit leaves; the thread stays)")
                continue
            if line is None:
                break
            await self._guarded(self._take(line, drops=lines.drops))

    def status(self) -> str:
        """One line on the state of the chat."""
        names = " ".join(f"{m.name}×{m.weight:g}" for m in self._waiting.media)
        parts = [
            self._thread,
            self._settings.model
            if self._agent is None
            else f"{self._settings.model}, agent {self._agent}",
            cache_words.described(self._cache),
            f"attached: {names}" if names else "/help",
        ]
        return "  ·  ".join(parts)

    async def _guarded(self, work: Awaitable[None]) -> None:
        """What a person got wrong is told, and the chat goes on."""
        try:
            await work
        except IbllmError as error:
            self._screen.fail(str(error))
        except Exception as error:  # noqa: BLE001 - an agent or a provider may raise anything
            self._screen.fail(f"{type(error).__name__}: {error}")

    async def _take(self, line: str, *, drops: bool) -> None:
        meant = read_line(line, drops=drops)
        if isinstance(meant, Command):
            handler = self._commands[meant.name]
            _check_arguments(meant.name, handler, meant.arguments)
            await handler(*meant.arguments)
        elif meant is not None:
            await self._say(meant)

    @property
    def _config(self) -> Any:
        return {"configurable": {"thread_id": self._thread}, "recursion_limit": _MAX_STEPS}

    # talking

    async def _say(self, text: str) -> None:
        """Ask; Ctrl-C stops the answer, and what was said so far stays in the thread."""
        message = HumanMessage([{"type": "text", "text": text}, *self._waiting.media])
        _, before = await history(self._plain, self._config)
        with self._screen.answer() as answer:
            work = asyncio.ensure_future(self._answer(message, answer.tell))
            with interruptible(work), without_echo():
                await asyncio.wait([work])
            self._waiting.take()
            if work.cancelled():
                await mend(self._plain, self._config, answer.text)
            elif work.exception() is not None:
                await mend(self._plain, self._config, answer.text or "(no answer: it failed)")
        if work.cancelled():
            self._screen.notice("(stopped)")
        else:
            work.result()
        await self._tell_made(before)

    async def _tell_made(self, before: dict[str, Attachment]) -> None:
        """Name what an agent made meanwhile, such as a picture with boxes."""
        messages, held = await history(self._plain, self._config)
        given = {id_ for message in messages if message.type == "human" for id_ in ids_of(message)}
        for id_ in held.keys() - before.keys() - given:
            name = held[id_]["name"] or held[id_]["modality"]
            self._screen.notice(f"made {id_} ({name}); /save {id_} FILE keeps it")

    async def _answer(self, message: HumanMessage, tell: Callable[[Any], None]) -> None:
        async for event in talk(self._graph, message, self._config):
            tell(event)

    async def _resume(self) -> None:
        """Show where a thread stands, and close what was cut off."""
        await mend(self._plain, self._config, "(no answer: the program ended)")
        messages, _ = await history(self._plain, self._config)
        if not messages:
            self._screen.notice(
                f"thread {self._thread} · {self._settings.model} · /help shows what you can do"
            )
            return
        told = [m for m in messages if isinstance(m, (HumanMessage, AIMessage)) and m.text.strip()]
        self._screen.notice(
            f"thread {self._thread} goes on ({len(told)} messages; /new begins another)"
        )
        for message in told[-_N_RECALLED:]:
            who = "› " if isinstance(message, HumanMessage) else "  "
            text = " ".join(message.text.split())
            self._screen.quote(
                who, text if len(text) <= _MAX_RECALLED else text[:_MAX_RECALLED] + "…"
            )

    # attachments

    async def _shown(self) -> list[Shown]:
        return attached.listed(*await history(self._plain, self._config), self._waiting)

    async def _attach(self, *files: str) -> None:
        if "-" in files:
            raise ConfigurationError("/attach -: standard input is the talk itself; name a file")
        self._waiting.media += await asyncio.to_thread(self._opened, files)
        shown = await self._shown()
        self._list(shown[-len(files) :] if files else shown)

    def _opened(self, files: Sequence[str]) -> list[Media]:
        """Read files, and decode them once: what is damaged must not get into a thread."""
        senses = senses_of(self._brains.chat)
        media = self._read_files(files)
        for medium in media:
            load(medium)
            if senses is not None and medium.modality not in senses.modalities:
                raise ConfigurationError(
                    f"{medium.name}: found a medium of {medium.modality}, for which "
                    f"{self._settings.model} has no sense; expected one of "
                    f"{', '.join(sorted(senses.modalities))}"
                )
        return media

    async def _weight(self, *words: str) -> None:
        if not 1 <= len(words) <= 2:
            raise ConfigurationError("/weight: expected [NAME] NUMBER, such as /weight dog.jpg 0.5")
        shown = await self._shown()
        chosen = attached.choose(shown, words[0] if len(words) == 2 else None)
        weight = attached.weighed(words[-1], chosen.name)
        if chosen.id is None:
            self._waiting.weigh(chosen.number - len(shown) - 1, weight)
        else:
            _, held = await history(self._plain, self._config)
            record = {**held[chosen.id], "weight": weight}
            await change(self._plain, self._config, {"attachments": {chosen.id: record}})
        self._list([entry for entry in await self._shown() if entry.number == chosen.number])

    async def _detach(self, *words: str) -> None:
        shown = await self._shown()
        chosen = attached.choose(shown, " ".join(words) or None)
        if chosen.id is None:
            del self._waiting.media[chosen.number - len(shown) - 1]
        else:
            messages, _ = await history(self._plain, self._config)
            without = attached.without(messages, chosen.id)
            await change(self._plain, self._config, {"messages": without})
        self._screen.notice(f"{chosen.name} is detached")

    def _list(self, shown: Sequence[Shown]) -> None:
        for entry in shown:
            self._screen.notice(str(entry))
        if not shown:
            self._screen.notice("nothing is attached; /attach FILE")

    # settings

    async def _set_cache(self, *words: str) -> None:
        if words:
            self._cache = cache_words.changed(self._cache, self._settings.model, words)
            self._brains.set_cache(self._cache)
            self._open(self._agent)
        self._screen.notice(cache_words.described(self._cache))

    async def _set_agent(self, name: str = MEDIA_AGENT) -> None:
        self._open(None if name == "off" else name)
        who = self._settings.model if self._agent is None else f"agent {self._agent}"
        self._screen.notice(f"{who} answers")

    def _open(self, agent: str | None) -> None:
        self._graph = self._brains.open(agent)
        self._plain = self._brains.plain()
        self._agent = agent

    # files and threads

    async def _save(self, *words: str) -> None:
        over = words[:1] == ("-f",)
        names = words[1:] if over else words
        if not 1 <= len(names) <= 2:
            raise ConfigurationError("/save: expected [-f] [ID] FILE, such as /save talk.md")
        path = Path(names[-1]).expanduser()
        messages, held = await history(self._plain, self._config)
        if len(names) == 2:
            chosen = attached.choose(attached.held_by_id(held), names[0])
            data = self._brains.attachments.read(held[str(chosen.id)])
        else:
            form = saving.form_of(path)
            data = saving.transcript(self._thread, messages, held, form).encode()
        saving.write(path, data, over=over)
        self._screen.notice(f"saved {path}")

    async def _new(self, *words: str) -> None:
        taken = [thread.name for thread in await listing.threads(self._saver)]
        name = listing.check_name(" ".join(words)) if words else listing.free_name(taken)
        if name in taken:
            raise ConfigurationError(f"found a thread {name!r}; /thread {name} goes on with it")
        await self._switch(name)

    async def _threads(self) -> None:
        for thread in await listing.threads(self._saver):
            mark = "*" if thread.name == self._thread else " "
            when = thread.changed.astimezone().strftime("%Y-%m-%d %H:%M")
            self._screen.notice(f"{mark} {thread.name}  {when}")

    async def _switch(self, *words: str) -> None:
        self._thread = listing.check_name(" ".join(words))
        self._waiting.take()
        await self._resume()

    async def _forget(self, *words: str) -> None:
        name = listing.check_name(" ".join(words))
        if name not in [thread.name for thread in await listing.threads(self._saver)]:
            raise ConfigurationError(f"found no thread {name!r}; /threads lists them")
        await self._saver.adelete_thread(name)
        gone = await asyncio.to_thread(self._brains.attachments.clean, self._saver)
        self._screen.notice(f"{name} is deleted, and {len(gone)} files that no thread needs")

    async def _help(self) -> None:
        self._screen.notice(described())

    async def _quit(self) -> None:
        self._ended = True


def _check_arguments(name: str, handler: Callable[..., Any], arguments: Sequence[str]) -> None:
    try:
        inspect.signature(handler).bind(*arguments)
    except TypeError:
        takes = COMMANDS[name][0] or "nothing"
        raise ConfigurationError(
            f"/{name}: found {' '.join(arguments) or 'nothing'!r}; expected {takes}"
        ) from None
