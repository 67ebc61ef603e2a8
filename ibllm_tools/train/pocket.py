"""The recipe of `pocket`, the miniature of the whole system that ships with the package.

```
parquet -> arrays -> 0 language model | 0 encoder: photos+text, then sounds, depth, shapes
        -> photo features -> 1 bind network, queries, gates -> 2 instructions -> folder
```
`train_pocket` runs all stages or continues a run that was stopped. The language model never
sees a sound, a shape or a depth map: stages 1 and 2 use photos and text only.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibllm_tools.cache import CacheSettings, VisualCache
from ibllm_tools.checkpoints import POCKET_FOLDER
from ibllm_tools.encoder import ImageBind
from ibllm_tools.model import ImageBindLLM
from ibllm_tools.model.tool_ranking import RANKER_FOLDER, ToolRanker
from ibllm_tools.preprocess import PreprocessConfig, tokenize
from ibllm_tools.train.binding import (
    Hub,
    bind_modality,
    depth_views,
    group_clouds,
    official_clips,
    point_views,
    sound_views,
)
from ibllm_tools.train.contrastive import accuracy, clean_rows, encode_all
from ibllm_tools.train.data import (
    Table,
    hold_out,
    open_table,
    read_concepts,
    read_text,
)
from ibllm_tools.train.encoder_sizes import EncoderSizes
from ibllm_tools.train.features import FeatureSource, PhotoFeatures, encode_photos
from ibllm_tools.train.knowledge import Fact, facts_for
from ibllm_tools.train.language import LanguageSizes, pick_captions, train_language
from ibllm_tools.train.loop import Run, Schedule
from ibllm_tools.train.nothing import (
    encode_nothing,
    noise_shapes,
    noise_sounds,
    with_nothing,
)
from ibllm_tools.train.photos import train_photos, train_words
from ibllm_tools.train.shipping import save_pocket
from ibllm_tools.train.tool_ranker import STEPS, draw_plain, train_ranker
from ibllm_tools.train.tune import (
    draw_bare_rows,
    draw_changing_rows,
    draw_shown_rows,
    open_gates,
    tune,
)
from ibllm_tools.train.words import Prompts, subtype_names

DEFAULT_MINUTES = 120.0
N_NOTHING = 96
"""Sounds and clouds of noise beside the training rows."""


@dataclass(frozen=True)
class PocketSchedules:
    """Steps and rates of every stage; the defaults take about two hours on two CPU cores."""

    language: Schedule = field(
        default_factory=lambda: Schedule(
            12_000, 2e-3, 50, decay_from=0.45, weight_decay=0.01, save_every=400
        )
    )
    photos: Schedule = field(
        default_factory=lambda: Schedule(
            1700, 3e-3, 100, decay_from=0.2, save_every=50, muon_lr=0.03
        )
    )
    words: Schedule = field(default_factory=lambda: Schedule(500, 1e-3, 20))
    audio: Schedule = field(default_factory=lambda: Schedule(650, 1.5e-3, muon_lr=0.02))
    point: Schedule = field(default_factory=lambda: Schedule(650, 1e-3, muon_lr=0.02))
    depth: Schedule = field(default_factory=lambda: Schedule(500, 1.5e-3))
    bind: Schedule = field(default_factory=lambda: Schedule(600, 2e-3, 50))
    instruct: Schedule = field(default_factory=lambda: Schedule(4400, 1.5e-3, 50, save_every=200))

    def scaled(self, factor: float) -> PocketSchedules:
        """Make every stage longer or shorter."""
        stages = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return PocketSchedules(
            **{
                name: dataclasses.replace(s, steps=max(1, round(s.steps * factor)))
                for name, s in stages.items()
            }
        )


@dataclass(frozen=True)
class PocketOptions:
    """Everything that shapes a run of the recipe besides its folders.

    Attributes:
        seed: Seed of all randomness.
        encoder: Sizes of the encoder.
        language: Sizes of the language model and its text.
        schedules: Steps of every stage.
        photo_batch: Photos a step of stage 0.
        other_batch: Sounds, shapes or depth maps a step of stage 0.
        held_out: Share of the training rows kept out to choose settings on.
        cache_size: Photo features in the visual cache.
        n_talks: Conversations about photos that stages 1 and 2 draw from.
        n_bare: Conversations without media that stage 2 draws from.
        ranker_steps: Steps of the ranking of tools.
        word_encoder: A sentence encoder that its words start from, such as
            "sentence-transformers/all-MiniLM-L6-v2"; None starts from the shipped ranking.
    """

    seed: int = 0
    encoder: EncoderSizes = field(default_factory=EncoderSizes)
    language: LanguageSizes = field(default_factory=LanguageSizes)
    schedules: PocketSchedules = field(default_factory=PocketSchedules)
    photo_batch: int = 256
    other_batch: int = 64
    held_out: float = 0.04
    cache_size: int = 3000
    n_talks: int = 30_000
    n_bare: int = 14_000
    ranker_steps: int = STEPS
    word_encoder: str | None = None


@dataclass(frozen=True)
class Pack:
    """The decoded data of a run; each table as (to learn from, held out)."""

    facts: list[Fact]
    text: list[dict[str, str]]
    photos: tuple[Table, Table]
    sounds: tuple[Table, Table]
    shapes: tuple[Table, Table]


def open_pack(data_dir: Path, work_dir: Path, options: PocketOptions) -> Pack:
    """Decode the training split of a data pack, or map what an earlier run decoded."""
    tables = {
        kind: hold_out(
            open_table(data_dir, work_dir, kind, "train"), kind, options.held_out, options.seed
        )
        for kind in ("photos", "sounds", "shapes")
    }
    return Pack(facts_for(read_concepts(data_dir)), read_text(data_dir), **tables)


def train_encoder(run: Run, pack: Pack, options: PocketOptions) -> ImageBind:
    """Stage 0: train all trunks of the encoder; resumes after a kill.

    Returns:
        The encoder in evaluation mode.
    """
    config = options.encoder.preprocessing()
    torch.manual_seed(run.step_seed("encoder", -1))
    encoder = options.encoder.build()
    photos, held = pack.photos
    prompts = Prompts(pack.facts, subtype_names(photos), config)
    captions = concept_captions(pack, config, run.seed)
    anchors = train_photos(
        run, options.schedules.photos, encoder, config, photos, held, prompts, captions,
        options.photo_batch,
    )  # fmt: skip
    train_words(run, options.schedules.words, encoder, prompts, captions, anchors)
    encoder.eval()
    for name in ("vision", "text"):
        for part in ("modality_preprocessors", "modality_trunks", "modality_heads"):
            encoder.get_submodule(part)[name].requires_grad_(requires_grad=False)  # type: ignore[index]
    features = encode_all(encoder, "image", lambda r: clean_rows(photos, r, config), len(photos))
    torch.manual_seed(run.step_seed("nothing", -1))
    words = torch.cat([prompts.ensemble(encoder), encode_nothing(encoder, config)[None]])
    hub = Hub(features, torch.from_numpy(photos.concept), words)
    bind_others(run, pack, options, encoder, hub)
    return encoder.eval()


def bind_others(run: Run, pack: Pack, options: PocketOptions, encoder: ImageBind, hub: Hub) -> None:
    """Bind sounds, shapes and depth maps to the frozen photos and words."""
    config, schedules = options.encoder.preprocessing(), options.schedules
    sounds, held_sounds = pack.sounds
    shapes, held_shapes = pack.shapes
    n_concepts = len(hub.words) - 1

    def heard(table: Table, modality: str, inputs: object) -> str:
        found = encode_all(encoder, modality, inputs, len(table))  # type: ignore[arg-type]
        means, words = (accuracy(found, a, table) for a in (hub.means(), hub.words))
        return f"held-out {modality} to photos {means:.3f} to words {words:.3f}"

    hiss = noise_sounds(N_NOTHING, sounds.values.shape[1], run.seed)
    clouds = noise_shapes(N_NOTHING, shapes.values.shape[1], run.seed)
    sounds = with_nothing(sounds, hiss, n_concepts)
    solid, shapes = shapes, with_nothing(shapes, clouds, n_concepts)
    clips = cache(lambda: official_clips(held_sounds, config))  # made when first needed
    bind_modality(
        run, schedules.audio, encoder, "audio", hub, sounds, lambda: sound_views(sounds, config),
        lambda: heard(held_sounds, "audio", lambda r: torch.stack([clips()[i] for i in r])),
        options.other_batch,
    )  # fmt: skip
    groups = cache(lambda: group_clouds(held_shapes, encoder))
    bind_modality(
        run, schedules.point, encoder, "point", hub, shapes, lambda: point_views(shapes, encoder),
        lambda: heard(held_shapes, "point", lambda r: groups().select(r)), options.other_batch,
    )  # fmt: skip
    px = options.encoder.image_px
    held_maps = depth_views(held_shapes, px)
    bind_modality(
        run, schedules.depth, encoder, "depth", hub, solid, lambda: depth_views(solid, px),
        lambda: heard(held_shapes, "depth", lambda r: held_maps(r).inputs), options.other_batch,
    )  # fmt: skip


def concept_captions(pack: Pack, config: PreprocessConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Captions that name exactly one concept: token rows and these concepts."""
    rng = random.Random(seed)  # noqa: S311
    names = {word: i for i, fact in enumerate(pack.facts) for word in (fact.name, *fact.synonyms)}
    chosen: list[tuple[str, int]] = []
    for caption in pick_captions(rng, pack.text, 1 << 30):
        found = {names[w] for w in caption.lower().replace(".", " ").split() if w in names}
        if len(found) == 1:
            chosen.append((caption, found.pop()))
    if not chosen:
        return torch.empty(0, config.text_context, dtype=torch.long), torch.empty(0).long()
    tokens = tokenize([c for c, _ in chosen], config)
    return tokens, torch.tensor([i for _, i in chosen])


def train_pocket(
    data_dir: Path | str,
    out_dir: Path | str,
    work_dir: Path | str,
    *,
    minutes: float = DEFAULT_MINUTES,
    seed: int = 0,
    options: PocketOptions | None = None,
) -> Path:
    """Train pocket from a data pack, or continue where a stopped run was.

    Args:
        data_dir: Folder with the pack's parquet files and `concepts.json`.
        out_dir: Where the model folder is written.
        work_dir: Where decoded arrays, checkpoints and `log.txt` are kept. A run with the
            same folder, seed and options continues exactly; delete it to begin anew.
        minutes: About how long to train on two CPU cores; scales the steps of every stage.
        seed: Seed of all randomness.
        options: Sizes and steps; overrides `minutes` and `seed`.

    Returns:
        `out_dir`.

    Raises:
        ConfigurationError: The pack is incomplete.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    if options is None:
        schedules = PocketSchedules().scaled(minutes / DEFAULT_MINUTES)
        options = PocketOptions(seed=seed, schedules=schedules)
    data_dir, out_dir, work_dir = Path(data_dir), Path(out_dir), Path(work_dir)
    torch.set_flush_denormal(True)
    run = Run(work_dir, options.seed)
    pack = open_pack(data_dir, work_dir, options)
    ranker = train_tool_ranker(run, pack, options)
    llm, tokenizer = train_language(
        run, options.language, options.schedules.language, pack.facts, pack.text, ranker
    )
    encoder = train_encoder(run, pack, options)
    config = options.encoder.preprocessing()
    features = encode_photos(
        encoder, pack.photos[0], config, work_dir / "features.safetensors", seed=options.seed,
        facts=pack.facts, data_dir=data_dir,
    )  # fmt: skip
    photo_cache = VisualCache(features.cache_vectors(options.cache_size, options.seed))
    model = ImageBindLLM.from_llm(llm, joint_dim=options.encoder.joint_dim)
    tune_senses(run, pack, options, model, features, photo_cache, tokenizer, ranker)
    model.encoder, model.cache = encoder, photo_cache
    model.config.encoder_config = encoder.config
    settings = choose_cache(run, pack, options, model, tokenizer)
    save_pocket(out_dir, model, tokenizer, config, pack.facts, settings, ranker)
    run.say(f"saved {out_dir}")
    return out_dir


def train_tool_ranker(run: Run, pack: Pack, options: PocketOptions) -> ToolRanker:
    """Train the ranking of tools, or read what an earlier run trained."""
    folder = run.work_dir / RANKER_FOLDER
    if not folder.is_dir():
        start = options.word_encoder or ToolRanker.load(POCKET_FOLDER / RANKER_FOLDER)
        rng = random.Random(run.step_seed("plain", -1))  # noqa: S311
        plain = draw_plain(rng, pack.facts, pack.text)
        train_ranker(run, plain, start, steps=options.ranker_steps).save(folder)
    return ToolRanker.load(folder)


def tune_senses(
    run: Run,
    pack: Pack,
    options: PocketOptions,
    model: ImageBindLLM,
    features: PhotoFeatures,
    photo_cache: VisualCache,
    tokenizer: Any,
    ranker: ToolRanker | None = None,
) -> None:
    """Stages 1 and 2: photos and text only."""
    torch.manual_seed(run.step_seed("senses", -1))
    rng = random.Random(run.step_seed("senses", -2))  # noqa: S311
    source = FeatureSource(features, photo_cache)
    shown = source.concepts
    open_gates(model)
    talks = draw_shown_rows(rng, pack.facts, shown, tokenizer, options.n_talks, ranker)
    tune(run, "bind", options.schedules.bind, model, source, talks, tokenizer)
    talks += draw_changing_rows(rng, pack.facts, shown, tokenizer, options.n_talks // 8)
    bare = draw_bare_rows(rng, pack.facts, pack.text, tokenizer, options.n_bare, ranker, shown)
    tune(run, "instruct", options.schedules.instruct, model, source, talks + bare, tokenizer)


def choose_cache(
    run: Run, pack: Pack, options: PocketOptions, model: ImageBindLLM, tokenizer: Any
) -> CacheSettings | None:
    """Choose the default cache settings by the answers about held-out training rows.

    Returns:
        The settings with the best mean over photos, sounds and shapes; None where none beats
        answering without the cache.
    """
    from ibllm_tools.train.scoring import held_features, score_settings

    tables = held_features(pack, options, model)
    scores = score_settings(tables, pack.facts, model, tokenizer)
    for settings, score in scores:
        run.say(f"cache {settings}: {' '.join(f'{n} {v:.3f}' for n, v in score.items())}")
    best = max(scores, key=lambda row: sum(row[1].values()) / max(1, len(row[1])))
    return best[0]
