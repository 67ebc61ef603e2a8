"""One load per expert, a memory budget, least recently used out first, one caller at a time."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ibllm_tools.errors import ConfigurationError, QueueFullError
from ibllm_tools.experts.registry import ExpertKey, Loaded, Registry


def key(name, device="cpu"):
    return ExpertKey(name, device, "float32")


class Shelf:
    """Loads named texts of 10 bytes, and counts how often it did."""

    def __init__(self, budget_bytes, patience_s=5.0):
        self.registry = Registry(budget_bytes, patience_s)
        self.loads = []

    def use(self, name, n_bytes=10, device="cpu"):
        def load():
            self.loads.append(name)
            time.sleep(0.02)
            return Loaded(f"expert {name}", n_bytes)

        return self.registry.use(key(name, device), load, n_bytes)

    def names(self):
        return [each.checkpoint for each in self.registry.loaded()]


def test_eight_threads_load_once_and_work_one_at_a_time():
    shelf, inside, most = Shelf(100), [], []

    def work(_):
        with shelf.use("a") as expert:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()
            return expert

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(32))) == {"expert a"}
    assert shelf.loads == ["a"]
    assert max(most) == 1


def test_the_least_recently_used_goes_first():
    shelf = Shelf(20)
    for name in ("a", "b", "a", "c"):
        with shelf.use(name):
            pass
    assert shelf.names() == ["a", "c"]
    assert shelf.registry.n_bytes("cpu") == 20
    with shelf.use("b") as expert:
        assert expert == "expert b"
    assert shelf.loads == ["a", "b", "c", "b"]


def test_keys_of_other_dtypes_devices_and_libraries_are_apart():
    registry = Registry(100)
    keys = [
        ExpertKey("a", "cpu", "float32"),
        ExpertKey("a", "cpu", "bfloat16"),
        ExpertKey("a", "meta", "float32"),
        ExpertKey("a", "cpu", "float32", "other"),
    ]
    for number, each in enumerate(keys):
        with registry.use(each, lambda number=number: Loaded(number, 1)) as expert:
            assert expert == number
    assert registry.loaded() == keys


def test_devices_have_budgets_of_their_own():
    shelf = Shelf(10)
    for name, device in (("a", "cpu"), ("b", "meta")):
        with shelf.use(name, device=device):
            pass
    assert shelf.names() == ["a", "b"]


def test_what_is_larger_than_the_budget_is_refused_before_it_is_loaded():
    shelf = Shelf(10)
    with pytest.raises(ConfigurationError, match="set_memory_budget"), shelf.use("a", 11):
        pass
    assert shelf.loads == []


def test_what_turns_out_larger_than_the_budget_is_not_kept():
    registry = Registry(10)
    with pytest.raises(ConfigurationError), registry.use(key("a"), lambda: Loaded("a", 11)):
        pass
    assert registry.loaded() == []
    assert registry.n_bytes("cpu") == 0


def test_a_load_waits_for_an_expert_at_work_and_never_unloads_it():
    shelf, order = Shelf(10), []
    started = threading.Event()

    def hold():
        with shelf.use("a"):
            started.set()
            time.sleep(0.1)
            assert shelf.names() == ["a"]
            order.append("a ends")

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait()
    with shelf.use("b"):
        order.append("b begins")
    thread.join()
    assert order == ["a ends", "b begins"]
    assert shelf.names() == ["b"]


def test_waiting_for_room_ends_with_an_error():
    shelf = Shelf(10, patience_s=0.05)
    outcome = []

    def other():
        try:
            with shelf.use("b"):
                pass
        except QueueFullError as error:
            outcome.append(str(error))

    with shelf.use("a"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(60)
    assert "at work" in outcome[0]


def test_a_caller_that_holds_one_expert_may_open_another_beyond_the_budget():
    shelf = Shelf(10, patience_s=30)
    with shelf.use("a"), shelf.use("b") as second:
        assert second == "expert b"
        assert shelf.registry.n_bytes("cpu") == 20
    assert shelf.registry.n_bytes("cpu") == 10


def test_a_failed_load_leaves_nothing_and_is_tried_again():
    registry, tries = Registry(10), []

    def load():
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no disk")
        return Loaded("a", 10)

    with pytest.raises(OSError, match="no disk"), registry.use(key("a"), load, 10):
        pass
    assert registry.n_bytes("cpu") == 0
    with registry.use(key("a"), load, 10) as expert:
        assert expert == "a"


def test_a_smaller_budget_unloads_and_unload_unloads_all():
    shelf = Shelf(30)
    for name in "abc":
        with shelf.use(name):
            pass
    shelf.registry.set_budget(10)
    assert shelf.names() == ["c"]
    shelf.registry.unload()
    assert shelf.names() == []
    with pytest.raises(ConfigurationError, match="more than 0"):
        shelf.registry.set_budget(0)


def test_the_usual_budget_is_half_of_the_memory():
    budget = Registry().budget_bytes("cpu")
    assert 2**28 < budget < 2**44


def test_many_threads_over_few_places_keep_to_the_budget():
    shelf, seen = Shelf(20), []

    def work(number):
        name = "abcd"[number % 4]
        with shelf.use(name) as expert:
            seen.append(shelf.registry.n_bytes("cpu"))
            return expert == f"expert {name}"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))
    assert max(seen) <= 20


def test_importing_experts_loads_no_model_library():
    code = "import sys, ibllm_tools.experts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in done.stdout.split()}
    assert not roots & {"torch", "transformers", "whisper", "ultralytics", "langchain"}
