"""The visual cache and the mix: reference numbers, both formulas, files, damaged files."""

import re
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
import torch
from conftest import stored_entry, stored_names
from torch.nn import functional as F

from ibllm_tools.cache import CacheSettings, VisualCache
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.mix import mix

VARIANTS = ["full_query", "last_layers", "legacy_bridge", "pretrain_phase", "end_to_end"]
DIM = 24


@pytest.fixture(scope="module")
def images():
    """300 unit vectors around 30 centres, so that neighbours mean something."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(30, DIM, generator=generator).repeat_interleave(10, dim=0)
    return F.normalize(centres + 0.3 * torch.randn(300, DIM, generator=generator), dim=-1)


@pytest.fixture(scope="module")
def queries():
    return F.normalize(torch.randn(33, DIM, generator=torch.Generator().manual_seed(2)), dim=-1)


class Reference:
    """One variant of `imagebind_llm_tiny`: features, mixes, cache vectors, results."""

    def __init__(self, golden, variant):
        folder = f"imagebind_llm_tiny/{variant}"
        self.config = golden.json(f"{folder}/config.json")
        self.outputs = golden.tensors(f"{folder}/outputs.safetensors")
        inputs = golden.tensors(f"{folder}/inputs.safetensors")
        stored = {"features.": inputs, "embedding.": self.outputs}
        self.features = {
            name.removeprefix(prefix): tensor
            for prefix, tensors in stored.items()
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        self._golden, self._vectors = golden, f"{folder}/cache_index.npz"

    def cache(self):
        return VisualCache(np.load(self._golden.path(self._vectors))["vectors"])

    def mixed(self, case):
        weights = self.config["mix_cases"][case]
        parts = [self.features[name] for name in weights]
        n = parts[0].shape[0]
        return mix(
            parts,
            [torch.full((n,), float(weight)) for weight in weights.values()],
            [torch.arange(n)] * len(parts),
            n,
        )

    def settings(self):
        given = self.config["cache_params"]
        named = {"": given} if "cache_size" in given else given
        return {
            name: CacheSettings(one["cache_size"], one["cache_t"], one["cache_weight"])
            for name, one in named.items()
        }


BLEND = re.compile(r"cache\.([^.]+)\.(?:[^.]+\.)?joint")
NEAREST = re.compile(r"cache\.([^.]+)\.(top\d+)_index")


def reference_mixes():
    """(variant, case) of every mix; one that will be skipped where the folder has none."""
    mixes = []
    for variant in VARIANTS:
        cases = stored_entry(f"imagebind_llm_tiny/{variant}/config.json", "mix_cases")
        mixes += [(variant, case) for case in cases or ["any"]]
    return mixes


def reference_results(pattern):
    """(variant, case, rest of the pattern) of every stored result."""
    results = []
    for variant in VARIANTS:
        names = stored_names(f"imagebind_llm_tiny/{variant}/outputs.safetensors")
        found = {match.groups() for name in names if (match := pattern.fullmatch(name))}
        absent = [] if names else [("any",) * pattern.groups]
        results += [(variant, *groups) for groups in sorted(found) or absent]
    return results


@pytest.mark.golden
@pytest.mark.parametrize(("variant", "case"), reference_mixes())
def test_mixes_equal_the_reference(golden, variant, case):
    reference = Reference(golden, variant)
    expected = reference.outputs[f"visual.{case}.joint"][:, 0]
    torch.testing.assert_close(reference.mixed(case), expected, atol=1e-6, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize(("variant", "case"), reference_results(BLEND))
def test_blends_equal_the_reference(golden, variant, case):
    reference, compared = Reference(golden, variant), 0
    cache, mixed = reference.cache(), reference.mixed(case)
    for name, settings in reference.settings().items():
        key = ".".join(part for part in ("cache", case, name, "joint") if part)
        if key in reference.outputs:
            blended = cache.blend(mixed, settings)
            expected = reference.outputs[key][:, 0]
            torch.testing.assert_close(blended, expected, atol=2e-5, rtol=0)
            compared += 1
    assert compared


@pytest.mark.golden
@pytest.mark.parametrize(("variant", "case", "top"), reference_results(NEAREST))
def test_the_nearest_equal_the_reference(golden, variant, case, top):
    reference = Reference(golden, variant)
    similarities = reference.outputs[f"cache.{case}.{top}_similarity"]
    found, ids, _ = reference.cache().search(reference.mixed(case), similarities.shape[1])
    assert torch.equal(ids, reference.outputs[f"cache.{case}.{top}_index"])
    torch.testing.assert_close(found, similarities, atol=5e-6, rtol=0)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_a_row_of_a_batch_is_what_it_is_alone(images, queries, form):
    cache, settings = VisualCache(images), CacheSettings(form=form)
    together = cache.blend(queries, settings)
    alone = torch.cat([cache.blend(row[None], settings) for row in queries])
    assert torch.equal(together, alone)


def test_the_code_form_is_a_softmax_average_blended_on_the_sphere(images, queries):
    blended = VisualCache(images).blend(queries, CacheSettings(4, 7.0, 0.3))
    for query, row in zip(queries, blended, strict=True):
        similar, ids = (images @ query).topk(4)
        retrieved = F.normalize((7.0 * similar).softmax(0) @ images[ids], dim=0)
        expected = F.normalize(0.7 * query + 0.3 * retrieved, dim=0)
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)


def test_the_paper_form_weighs_by_the_similarities_themselves(images, queries):
    blended = VisualCache(images).blend(queries, CacheSettings(4, 7.0, 0.3, "paper"))
    for query, row in zip(queries, blended, strict=True):
        similar, ids = (images @ query).topk(4)
        expected = 0.7 * query + 0.3 * (similar @ images[ids])
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)


def test_a_blend_keeps_dtype_and_empty_batches(images):
    cache = VisualCache(images)
    assert cache.blend(images[:3].bfloat16()).dtype == torch.bfloat16
    assert cache.blend(images[:0]).shape == (0, DIM)


def test_searches_find_at_most_what_there_is_nearest_first(images, queries):
    similarities, ids, vectors = VisualCache(images[:7]).search(queries, 10)
    assert similarities.shape == ids.shape == (len(queries), 7)
    assert (similarities.diff(dim=1) <= 0).all()
    torch.testing.assert_close(vectors, images[:7][ids], atol=1e-6, rtol=0)


def test_vectors_are_normalised(images, queries):
    scaled = images * torch.linspace(0.1, 9.0, len(images))[:, None]
    ours, expected = VisualCache(scaled).blend(queries), VisualCache(images).blend(queries)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_threads_share_one_cache(images, queries):
    cache = VisualCache(images)
    expected = cache.blend(queries)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: cache.blend(queries), range(16)))
    assert all(torch.equal(result, expected) for result in results)


def test_save_and_load_give_the_same_answers_without_pickle(images, queries, tmp_path):
    cache = VisualCache(images)
    cache.save(tmp_path / "cache")
    loaded = VisualCache.load(tmp_path / "cache")
    assert torch.equal(loaded.blend(queries), cache.blend(queries))
    suffixes = {path.suffix for path in (tmp_path / "cache").iterdir()}
    assert suffixes == {".json", ".safetensors"}


def test_half_precision_halves_the_file(images, queries, tmp_path):
    cache = VisualCache(images)
    cache.save(tmp_path / "full")
    cache.save(tmp_path / "half", dtype=torch.float16)
    size = {
        name: (tmp_path / name / "vectors.safetensors").stat().st_size for name in ("full", "half")
    }
    assert size["half"] < 0.55 * size["full"]
    loaded = VisualCache.load(tmp_path / "half")
    found, expected = loaded.search(queries, 10)[0], cache.search(queries, 10)[0]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_a_compressed_cache_finds_nearly_the_same_and_opens_from_disk(images, queries, tmp_path):
    exact, compressed = VisualCache(images), VisualCache.compressed(images, n_lists=4, n_probe=4)
    _, expected, _ = exact.search(queries, 10)
    _, found, _ = compressed.search(queries, 10)
    hits = (found[:, :, None] == expected[:, None, :]).any(-1).float().mean()
    assert hits > 0.95
    compressed.save(tmp_path)
    assert torch.equal(VisualCache.load(tmp_path).blend(queries), compressed.blend(queries))


def test_a_compressed_search_that_finds_too_few_still_blends(images, queries):
    cache = VisualCache.compressed(images, n_lists=30, n_probe=1)
    similarities, ids, vectors = cache.search(queries, 40)
    missing = ids < 0
    assert missing.any()
    assert similarities[missing].isneginf().all()
    assert (vectors[missing] == 0).all()
    for form in ("code", "paper"):
        assert cache.blend(queries, CacheSettings(40, form=form)).isfinite().all()


@pytest.mark.parametrize("factory", ["Flat", "IVF4,SQ8", "OPQ4,IVF4,SQ8", "HNSW8"])
def test_index_files_of_other_programs_open(images, queries, tmp_path, factory):
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(images.numpy())
    index.add(images.numpy())
    faiss.write_index(index, str(tmp_path / "knn.index"))
    cache = VisualCache.from_faiss(tmp_path / "knn.index")
    assert len(cache) == len(images)
    assert cache.dim == DIM
    if factory == "Flat":
        expected = VisualCache(images).blend(queries)
        torch.testing.assert_close(cache.blend(queries), expected, atol=1e-6, rtol=0)
    cache.save(tmp_path / "ours")
    assert torch.equal(VisualCache.load(tmp_path / "ours").blend(queries), cache.blend(queries))


def damaged(data):
    """Ways in which an index file can be broken; each declares or holds something impossible."""
    yield "empty", b""
    yield "text", b"not an index"
    yield "pickle", b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."
    yield "half", data[: len(data) // 2]
    yield "header only", data[:40]
    yield "many vectors", data[:8] + (1 << 40).to_bytes(8, "little") + data[16:]
    yield "long table", data[:37] + (1 << 38).to_bytes(8, "little") + data[45:]


@pytest.mark.parametrize("case", [name for name, _ in damaged(bytes(64))])
def test_damaged_index_files_are_refused_in_bounded_memory(images, tmp_path, case):
    index = faiss.IndexFlatIP(DIM)
    index.add(images.numpy())
    whole = faiss.serialize_index(index).tobytes()
    (tmp_path / "knn.index").write_bytes(dict(damaged(whole))[case])
    with pytest.raises(CheckpointError, match=r"knn\.index"):
        VisualCache.from_faiss(tmp_path / "knn.index")
    (tmp_path / "knn.index").write_bytes(whole)
    assert len(VisualCache.from_faiss(tmp_path / "knn.index")) == len(images)


def test_indexes_that_rank_by_distance_or_hold_nothing_are_refused(images, tmp_path):
    by_distance, empty = faiss.IndexFlatL2(DIM), faiss.IndexFlatIP(DIM)
    by_distance.add(images.numpy())
    for index in (by_distance, empty):
        faiss.write_index(index, str(tmp_path / "knn.index"))
        with pytest.raises(CheckpointError, match="inner product"):
            VisualCache.from_faiss(tmp_path / "knn.index")


def test_folders_that_do_not_fit_are_refused(images, tmp_path):
    with pytest.raises(CheckpointError, match=r"cache\.json"):
        VisualCache.load(tmp_path)
    VisualCache(images).save(tmp_path)
    for name, content in [
        ("cache.json", "[]"),
        ("cache.json", '{"kind": "exact", "count": 5, "dim": 24}'),
        ("vectors.safetensors", "no"),
    ]:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text(content)
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            VisualCache.load(tmp_path)
        (tmp_path / name).write_bytes(whole)
    assert len(VisualCache.load(tmp_path)) == len(images)


@pytest.mark.parametrize(
    "vectors",
    [torch.zeros(0, 4), torch.zeros(4), torch.full((2, 3), float("nan")), torch.ones(2, 2, 2)],
)
def test_only_finite_tables_make_a_cache(vectors):
    with pytest.raises(ConfigurationError, match="visual cache"):
        VisualCache(vectors)


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"weight": 1.5}, {"weight": float("nan")}, {"temperature": -1}, {"form": "mean"}],
)
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        CacheSettings(**wrong)


def test_queries_of_another_width_are_refused(images):
    with pytest.raises(ConfigurationError, match=str(DIM)):
        VisualCache(images).blend(torch.ones(2, DIM + 1))


def test_a_mix_weighs_unit_vectors_and_leaves_other_rows_alone():
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 0.5], [4.0, 3.0]])
    mixed = mix(embeddings, torch.tensor([1.0, 3.0, 2.0]), torch.tensor([2, 2, 0]), 4)
    expected = torch.tensor([[0.8, 0.6], [0.0, 0.0], [0.25, 0.75], [0.0, 0.0]])
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)


def test_a_mixed_row_is_what_it_is_alone():
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(12, DIM, generator=generator)
    weights = torch.rand(12, generator=generator) + 0.1
    rows = torch.tensor([0, 1, 1, 3, 0, 2, 2, 2, 1, 3, 0, 3])
    together = mix(embeddings, weights, rows, 4)
    for row in range(4):
        mine = rows == row
        alone = mix(embeddings[mine], weights[mine], torch.zeros_like(rows[mine]), 1)
        assert torch.equal(together[row], alone[0])
