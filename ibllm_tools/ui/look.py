"""How the page looks: fonts of the system, enough room, one column on a phone."""

from __future__ import annotations

from typing import Any

FONT = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: none !important; background: var(--neutral-50); }
.dark .gradio-container { background: var(--neutral-950); }
.gradio-container main { width: 100%; max-width: 1200px !important; margin: 0 auto !important; }
.block, .form { box-shadow: none !important; }
#head { align-items: flex-end; justify-content: space-between; }
#head > .block { flex: 1 1 300px; min-width: 0 !important; }
#head .form { background: transparent; border: 0; flex: 0 0 auto !important; }
#head h1 { font-size: 1.5rem; margin: 0 0 4px; letter-spacing: -0.01em; }
#head p { color: var(--body-text-color-subdued); margin: 0; }
#language { width: auto; min-width: 0 !important; padding: 0; background: transparent; border: 0; }
#language > span { position: absolute; clip-path: inset(50%); }
#chat { height: max(340px, calc(100vh - 330px)) !important; }
#chat > .wrapper > label { position: absolute; clip-path: inset(50%); }
#chat button:has(path[d^="M23,20a5"]), #chat .message-buttons-right { display: none; }
#chat .message img { max-height: 220px; width: auto; }
#chat figure.cloud { margin: 0; }
#chat canvas.cloud { width: 300px; max-width: 100%; height: 220px; cursor: grab; }
#chat canvas.cloud { display: block; touch-action: pan-y; }
#chat figcaption { font-size: 0.85em; }
#chat table { font-size: 0.9em; margin: 4px 0 12px; border: 0; }
#chat tr, #chat td, #chat th { border: 0; background: transparent; }
#chat td, #chat th { padding: 2px 16px 2px 0; white-space: nowrap; }
#composer textarea { font-size: 16px; }
#composer textarea:focus-visible { outline: none !important; }
#composer:focus-within { outline: 2px solid var(--color-accent); outline-offset: 1px; }
#status { color: var(--body-text-color-subdued); font-size: 0.85em; min-height: 1.5em; }
#tray { background: var(--block-background-fill); border-radius: var(--block-radius); gap: 0; }
#tray .tray-title { font-weight: 600; padding: 10px 12px 2px; }
#tray .tray-title .tray-title { padding: 0; }
#tray .block { padding-top: 6px; padding-bottom: 6px; }
#side { gap: 12px; }
*:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
@media (max-width: 640px) {
  .gradio-container main { padding: 10px !important; }
  #head { gap: 8px; }
  #head > .block { flex-basis: 100%; }
  #head h1 { font-size: 1.2rem; }
  #chat { height: max(320px, 52vh) !important; }
  #chat td, #chat th { padding-right: 8px; }
  #examples { flex-wrap: nowrap; overflow-x: auto; padding-bottom: 4px; }
  #examples button { flex: 0 0 auto; }
}
"""

SIGNATURE = "(value) => ((value && value.files) || []).map((file) => file.path).join('\\n')"
"""What the browser computes by itself: which files are attached."""


def theme() -> Any:
    """The theme; no font is fetched."""
    import gradio as gr

    return gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size=gr.themes.sizes.radius_lg,
        font=FONT,
        font_mono=MONO,
    ).set(
        block_title_background_fill="transparent",
        block_title_padding="0",
        block_title_text_color="*body_text_color",
        block_title_text_weight="500",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_background_fill_dark="transparent",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_weight="500",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        checkbox_label_shadow="none",
        button_secondary_shadow="none",
        button_secondary_border_color="*neutral_200",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="*neutral_200",
        input_border_color="*neutral_200",
        input_border_width="1px",
    )
