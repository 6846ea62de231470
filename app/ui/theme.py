"""How the app looks: Gradio's own theme variables set to calm greys and one teal; the rest is static/nibble.css."""

from pathlib import Path

from gradio.themes import Base
from gradio.themes.utils import colors, fonts, sizes

STATIC = Path(__file__).parents[1] / "static"
CSS = STATIC / "nibble.css"
SCRIPT = (STATIC / "nibble.js").read_text(encoding="utf-8")
LOGO = STATIC / "logo.svg"


def theme() -> Base:
    """Teal on slate, IBM Plex from Gradio's own files (nothing is fetched from elsewhere)."""
    base = Base(
        primary_hue=colors.teal,
        secondary_hue=colors.teal,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_lg,
        spacing_size=sizes.spacing_md,
        text_size=sizes.text_md,
        font=(fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=(fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0b1017",
        background_fill_primary_dark="#131a24",
        background_fill_secondary_dark="#0f151e",
        body_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        border_color_primary_dark="#263242",
        block_background_fill="white",
        block_background_fill_dark="#131a24",
        block_border_color="*neutral_200",
        block_border_color_dark="#222d3b",
        block_shadow="none",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        block_title_text_weight="600",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="*neutral_500",
        block_label_text_color_dark="*neutral_400",
        block_label_border_width="0px",
        input_background_fill="white",
        input_background_fill_dark="#0e141c",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="#2b3848",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_shadow_focus="0 0 0 3px rgb(20 184 166 / .22)",
        input_shadow_focus_dark="0 0 0 3px rgb(45 212 191 / .22)",
        panel_background_fill="transparent",
        panel_background_fill_dark="transparent",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="#1a2431",
        button_secondary_background_fill_hover_dark="#223042",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#30404f",
        button_border_width="1px",
        button_transition="background .12s, border-color .12s",
        button_large_radius="*radius_md",
        button_large_text_weight="600",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
