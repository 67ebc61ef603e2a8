"""Names in released files → names in `ImageBind`. Knows names only.

* ImageBind's own checkpoint: equal names.
* The copy inside an ImageBind-LLM checkpoint: prefix `image_bind.`.
* Point-Bind's checkpoint: the 3D trunk at the top, ImageBind under `bind.`, and the point head
  and its logit scale under names of their own; `logit_scale` is a training temperature.
"""

from __future__ import annotations

_PREFIXES = {
    "bind.modality_head_point.": "modality_heads.point.",
    "bind.modality_postprocessor_point.": "modality_postprocessors.point.",
    "bind.": "",
    "image_bind.": "",
    "point_encoder.": "point_trunk.point_encoder.",
    "pc_projection": "point_trunk.pc_projection",
}
IGNORED = ("logit_scale",)


def encoder_name(key: str) -> str | None:
    """Translate a released name; None for a key that the model does not use."""
    if key in IGNORED:
        return None
    for prefix, ours in _PREFIXES.items():
        if key.startswith(prefix):
            return ours + key[len(prefix) :]
    return key
