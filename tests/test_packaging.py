"""Extras of the package: which there are, what `all` leaves out, and what must never come in."""

import re
import tomllib

import pytest
from documented import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"all", "dev", "docs"}


def included(extra):
    """Names of the extras that an extra is made of."""
    listed = [need for need in EXTRAS[extra] if need.startswith("ibllm-tools[")]
    return {name for need in listed for name in need[len("ibllm-tools[") : -1].split(",")}


def test_all_is_everything_for_users_but_what_is_agpl():
    assert included("all") == set(EXTRAS) - FOR_DEVELOPERS - {"detect"}
    assert "ultralytics" in EXTRAS["detect"][0]
    assert included("all") | included("dev") <= set(EXTRAS)


def test_nothing_brings_torchvision():
    needs = [need for needs in (PROJECT["dependencies"], *EXTRAS.values()) for need in needs]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert not [need for need in [*needs, *pins] if re.match("torchvision|torchaudio", need)]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_is_told_of(extra):
    assert f"| `{extra}` |" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def test_pins_are_exact_and_listed_once():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = []
    for pin in (pin for pin in pins if pin and not pin.startswith("#")):
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==[\w.+]+", pin)
        assert found, pin
        names.append(found[1].lower().replace("_", "-"))
    assert len(names) == len(set(names))
