"""The parts of a picture of a person, as `ipse.world` draws them and `ipse.faces.landmarks` finds them."""

LABELS: tuple[str, ...] = (
    "background",
    "skin",
    "face",
    "ears",
    "eyes",
    "brows",
    "lips",
    "mouth",
    "hair",
    "beard",
    "glasses",
    "hat",
    "mask",
    "scarf",
    "top",
    "bottom",
    "dress",
    "coat",
    "shoes",
    "bag",
    "occluder",
)
"""Names of the segmentation classes; the class number is the position."""
