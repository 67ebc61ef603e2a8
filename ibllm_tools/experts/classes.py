"""Nouns and the fixed classes of a detector: which class does a noun mean?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 30


def choose_classes(labels: Sequence[str], classes: Sequence[str], model: str) -> set[str]:
    """Find the classes that nouns name, in any case, in the singular or plural.

    Raises:
        ConfigurationError: A noun names no class, so that finding nothing would say nothing.
    """
    by_form = {form: name for name in classes for form in _forms(name)}
    chosen, unknown = set(), []
    for label in labels:
        name = next((by_form[form] for form in _forms(label) if form in by_form), None)
        if name is None:
            unknown.append(label)
        else:
            chosen.add(name)
    if unknown:
        shown = ", ".join(classes[:SHOWN]) + (", …" if len(classes) > SHOWN else "")
        raise ConfigurationError(
            f"{model} cannot look for {', '.join(map(repr, unknown))}; it knows {len(classes)} "
            f"classes: {shown}. Ask for these, or open an open-vocabulary detector (OWLv2, "
            "Grounding DINO)"
        )
    return chosen


def _forms(noun: str) -> list[str]:
    """Spellings that mean the same: as it is, without an article, and in the singular."""
    plain = noun.casefold().replace("_", " ").strip()
    for article in ("a ", "an ", "the "):
        plain = plain.removeprefix(article)
    forms = [plain]
    if plain.endswith("ies"):
        forms.append(f"{plain[:-3]}y")
    if plain.endswith("es"):
        forms.append(plain[:-2])
    if plain.endswith("s") and not plain.endswith("ss"):
        forms.append(plain[:-1])
    return forms
