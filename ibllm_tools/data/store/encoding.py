"""`write_store`: runs the frozen encoder over a source once and stores what it gives.

```
examples ─ blocks ─ load + preprocess (threads, ahead) ─ encode ─ FeatureWriter, block by block
```
What a block holds depends on the source alone, so a run that was killed goes on with the same
blocks, and with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ibllm_tools.data.examples import Example, MediaRef
from ibllm_tools.data.store.identity import identify_encoder
from ibllm_tools.data.store.progress import Progress
from ibllm_tools.data.store.reading import STORE_FILE, FeatureStore, read_store_file
from ibllm_tools.data.store.shards import KEY_BYTES, Half
from ibllm_tools.data.store.writing import SHARD_ROWS, FeatureWriter
from ibllm_tools.encoder import ImageBind, trunk_of
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import MediaPolicy, Modality, load
from ibllm_tools.preprocess import PreprocessConfig, preprocess

BATCH = 64
ROWS_PER_BATCH = 16
AHEAD = 2
UNREADABLE = "unreadable medium"
NOT_FINITE = "medium without a finite vector"

Source: TypeAlias = Iterable[Example]
_Loaded = Tensor | tuple[str, str]


def write_store(
    sources: Source | Sequence[Source],
    encoder: ImageBind,
    config: PreprocessConfig,
    folder: str | Path,
    *,
    batch: int = BATCH,
    shard_rows: int = SHARD_ROWS,
    limit: int | None = None,
    workers: int | None = None,
    policy: MediaPolicy | None = None,
    name: str | None = None,
    progress: bool = False,
) -> FeatureStore:
    """Encode the media of all examples; a run that was stopped goes on where it was.

    A medium that cannot be read is counted and its example left out. One that several examples
    name is encoded once. Examples of text only are kept.

    Args:
        sources: One or several; they must give the same examples in the same order when read
            again. Their `report`, if they have one, is kept.
        encoder: On its device and in its dtype.
        config: Its preprocessing.
        folder: Of the store.
        batch: Pictures encoded at once; a sound counts as several, a video as more.
        shard_rows: Examples per shard.
        limit: At most so many examples.
        workers: Threads that load media; the number of cores, at most 8, by default.
        policy: Limits on media when they are decoded.
        name: What to call the encoder in the store.
        progress: Whether to draw a progress bar on standard error.

    Raises:
        CheckpointError: The folder holds features of another encoder.
        ConfigurationError: The folder was begun from another source, or no example could be kept.
    """
    listed = _listed(sources)
    identity = identify_encoder(encoder, config, name)
    about = {"source": [_name(source) for source in listed], "limit": limit}
    if (done := _finished(Path(folder), about, shard_rows)) is not None:
        done.require(identity)
        return done
    with FeatureWriter(folder, identity, shard_rows=shard_rows, about=about) as writer:
        rest = _behind(islice(_examples(listed), limit), writer)
        planner = _Planner(writer, batch, shard_rows, _costs(config))
        work = _Work(writer, encoder, config, policy, batch, planner)
        with _Pool(workers) as pool, Progress(shown=progress) as bar:
            work.run(rest, pool, bar)
        if not writer.report.kept:
            raise ConfigurationError("no example was kept: " + "; ".join(writer.report.lines()))
        reports = [s.report.as_dict() for s in listed if hasattr(s, "report")]
        return writer.finish(reports)


@dataclass
class _Block:
    """Examples that are encoded together; `new` are the media that the store lacks."""

    examples: list[tuple[Example, list[str]]] = field(default_factory=list)
    new: dict[str, MediaRef] = field(default_factory=dict)
    loads: dict[str, Future[_Loaded]] = field(default_factory=dict)


class _Planner:
    """Cuts examples into blocks; a block never crosses the end of a shard."""

    def __init__(
        self, writer: FeatureWriter, batch: int, shard_rows: int, costs: dict[str, int]
    ) -> None:
        self.pending: set[str] = set()  # planned, but not yet known to the writer
        self._writer, self._costs = writer, costs
        self._batch, self._shard_rows = batch, shard_rows

    def blocks(self, examples: Iterable[Example]) -> Iterator[_Block]:
        block, cost, left = _Block(), 0, self._writer.until_shard_ends
        for example in examples:
            digests = [medium_digest(ref) for ref in example.media]
            for digest, ref in zip(digests, example.media, strict=True):
                if digest not in self.pending and not self._writer.knows(digest):
                    self.pending.add(digest)
                    block.new[digest] = ref
                    cost += self._costs.get(ref.modality, 1)
            block.examples.append((example, digests))
            left -= 1
            full = cost >= self._batch or len(block.examples) >= self._batch * ROWS_PER_BATCH
            if full or left == 0:
                yield block
                block, cost, left = _Block(), 0, left or self._shard_rows
        if block.examples:
            yield block


@dataclass
class _Work:
    """What turns blocks into rows of a store."""

    writer: FeatureWriter
    encoder: ImageBind
    config: PreprocessConfig
    policy: MediaPolicy | None
    batch: int
    planner: _Planner

    def run(self, examples: Iterable[Example], pool: ThreadPoolExecutor, bar: Progress) -> None:
        """Load a few blocks ahead of the one that is encoded."""
        waiting: deque[_Block] = deque()
        for block in self.planner.blocks(examples):
            block.loads = {d: pool.submit(self.load, ref) for d, ref in block.new.items()}
            waiting.append(block)
            if len(waiting) > AHEAD:
                self.finish(waiting.popleft(), bar)
        while waiting:
            self.finish(waiting.popleft(), bar)

    def load(self, ref: MediaRef) -> _Loaded:
        """Read and preprocess one medium; whatever goes wrong concerns this medium only."""
        trunk = trunk_of(ref.modality)
        if trunk not in self.encoder.config.trunks:
            return f"no {trunk} trunk in the encoder", f"{ref.key} is of {ref.modality}"
        try:
            return preprocess(load(ref.block(), self.policy), self.config)
        except Exception as error:  # noqa: BLE001 - decoders of hostile files raise anything
            return UNREADABLE, f"{ref.key}: {type(error).__name__}: {error}"

    def finish(self, block: _Block, bar: Progress) -> None:
        """Encode a block's new media, and write its examples."""
        loaded = {digest: future.result() for digest, future in block.loads.items()}
        block.loads.clear()
        tensors = {d: x for d, x in loaded.items() if isinstance(x, Tensor)}
        failed = {d: x for d, x in loaded.items() if not isinstance(x, Tensor)}
        vectors = self.encode(block, tensors, failed)
        for digest, ref in block.new.items():
            if digest in failed:
                self.writer.fail(digest, *failed[digest])
            else:
                self.writer.add(digest, ref.modality, vectors[digest])
        for example, digests in block.examples:
            self.write(example, digests)
        self.writer.commit()
        self.planner.pending.difference_update(block.new)
        bar.advance(len(block.examples), self.writer.report)

    def write(self, example: Example, digests: list[str]) -> None:
        failures = (self.writer.failure(digest) for digest in digests)
        if (failure := next((f for f in failures if f), None)) is not None:
            self.writer.skip(example.id, *failure)
            return
        vectors = [torch.from_numpy(self.writer.vector(d).copy()) for d in digests]
        joined = torch.stack(vectors) if vectors else torch.zeros(0, self.writer.encoder.joint_dim)
        self.writer.append(example, joined, digests)

    def encode(
        self, block: _Block, tensors: dict[str, Tensor], failed: dict[str, tuple[str, str]]
    ) -> dict[str, Half]:
        """Encode tensors of one modality and shape together; failures are added to `failed`."""
        groups: dict[tuple[Modality, torch.Size], list[str]] = {}
        for digest, x in tensors.items():
            groups.setdefault((block.new[digest].modality, x.shape), []).append(digest)
        vectors: dict[str, Half] = {}
        for (modality, _), digests in groups.items():
            step = max(1, self.batch // _costs(self.config).get(modality, 1))
            for first in range(0, len(digests), step):
                chosen = digests[first : first + step]
                found = self.encode_together(modality, [tensors[d] for d in chosen])
                for digest, vector in zip(chosen, found, strict=True):
                    if isinstance(vector, tuple):
                        failed[digest] = vector[0], f"{block.new[digest].key}: {vector[1]}"
                    else:
                        vectors[digest] = vector
        return vectors

    def encode_together(
        self, modality: Modality, tensors: list[Tensor]
    ) -> list[Half | tuple[str, str]]:
        """Encode a batch; where the encoder refuses it, medium by medium."""
        try:
            with torch.inference_mode():
                encoded = self.encoder.encode(modality, torch.stack(tensors)).float()
                units = torch.nn.functional.normalize(encoded, dim=-1).half().cpu()
        except ConfigurationError as error:
            if len(tensors) == 1:
                return [(UNREADABLE, str(error))]
            return [self.encode_together(modality, [x])[0] for x in tensors]
        finite = units.isfinite().all(dim=-1).tolist()
        pairs = zip(units.numpy(), finite, strict=True)
        return [unit if good else (NOT_FINITE, "found NaN or infinity") for unit, good in pairs]


class _Pool(ThreadPoolExecutor):
    """Threads that drop what they have not begun when the run fails."""

    def __init__(self, workers: int | None) -> None:
        super().__init__(workers or min(8, os.cpu_count() or 1), "load")

    def __exit__(self, *problem: Any) -> bool | None:
        self.shutdown(wait=True, cancel_futures=problem[0] is not None)
        return None


def medium_digest(ref: MediaRef) -> str:
    """Tell a medium from others by where its bytes come from and what it is sensed as.

    Two sources may have the same key below different roots, so the opener counts.
    """
    digest = hashlib.blake2b(f"{ref.modality}\0".encode(), digest_size=KEY_BYTES)
    parts = getattr(ref.opener, "__dataclass_fields__", None)
    for name in parts or ():
        value = getattr(ref.opener, name)
        if name != "policy":
            digest.update(value if isinstance(value, bytes) else f"{value}\0".encode())
    if not parts:
        digest.update(ref.key.encode())
    return digest.hexdigest()


def _costs(config: PreprocessConfig) -> dict[str, int]:
    """How many pictures' worth of work a medium of each modality is."""
    return {"audio": config.audio_clips, "video": config.video_clips * config.video_crops}


def _listed(sources: Source | Sequence[Source]) -> list[Source]:
    if isinstance(sources, (list, tuple)) and not any(isinstance(x, Example) for x in sources):
        return list(sources)
    return [sources]  # type: ignore[list-item]


def _name(source: Source) -> str:
    return str(getattr(source, "name", None) or type(source).__name__)


def _examples(sources: Iterable[Source]) -> Iterator[Example]:
    for source in sources:
        yield from source


def _behind(examples: Iterator[Example], writer: FeatureWriter) -> Iterator[Example]:
    """Pass over the examples that a run before has written.

    Raises:
        ConfigurationError: The source does not give the same examples any more.
    """
    if writer.seen:
        last = next(islice(examples, writer.seen - 1, None), None)
        if last is None or last.id != writer.last_id:
            raise ConfigurationError(
                f"{writer.folder}: example {writer.seen} was {writer.last_id!r}, found "
                f"{last.id if last else None!r} now, so the source has changed; "
                "embed into another folder"
            )
    return examples


def _finished(folder: Path, about: dict[str, Any], shard_rows: int) -> FeatureStore | None:
    """The store, if it is complete and of this source."""
    if not (folder / STORE_FILE).is_file():
        return None
    found = read_store_file(folder)
    wanted = {**about, "shard_rows": shard_rows, "complete": True}
    same = all(found.get(name) == value for name, value in wanted.items())
    return FeatureStore.open(folder) if same else None
