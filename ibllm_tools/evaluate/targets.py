"""What pocket shall reach, by section and measure: the figures that the scorecard is held to."""

from __future__ import annotations

from ibllm_tools.evaluate.results import Target

# An LLM that beats its encoder (the cache may help it) has lost nothing on the way.
_POINTS_TO_ENCODER = Target(low=-0.03)
_SOME_GAIN = Target(low=0.001)

TARGETS: dict[str, dict[str, Target]] = {
    "names": {
        "photos.right": Target(low=0.62),
        "sounds.right": Target(low=0.68),
        "shapes.right": Target(low=0.72),
        **{f"{kind}.kind": Target(low=0.85) for kind in ("photos", "sounds", "shapes")},
        **{f"{kind}.gap": _POINTS_TO_ENCODER for kind in ("photos", "sounds", "shapes")},
        "same_as_chat": Target(low=0.98),
    },
    "cache": {"sounds.gain": _SOME_GAIN, "shapes.gain": _SOME_GAIN},
    "mixing": {"both": Target(low=0.70), "both.clean": Target(low=0.70)},
    "language": {
        "exists.accuracy": Target(low=0.85),
        "exists.yes": Target(low=0.45, high=0.55),
        "chinese.answered": Target(low=0.90),
        "chinese.gap": Target(low=-0.05, high=0.05),
        "dialog.given": Target(low=0.85),
    },
    "unknown": {
        "things": Target(low=0.80),
        "noise": Target(low=0.80),
        "all": Target(low=0.80),
        "known": Target(high=0.10),
    },
    "tools": {
        "integer": Target(low=0.95),
        "quoted": Target(low=0.90),
        **{f"quoted.{script}": Target(low=0.90) for script in ("latin", "han", "kana")},
        "place": Target(low=0.92),
        "attachment": Target(low=0.95),
        "plain": Target(low=0.95),
        "result": Target(low=0.90),
        "choose": Target(low=0.80),
        "choose_many": Target(low=0.65),
    },
    "speed": {
        "size": Target(high=40.0),
        "load": Target(high=1.5),
        "decoding": Target(low=150.0),
    },
}


def target_of(section: str, name: str) -> Target | None:
    """Return the target of a measure, or None."""
    return TARGETS.get(section, {}).get(name)
