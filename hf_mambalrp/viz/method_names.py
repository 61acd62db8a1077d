"""The names of the methods of attribution, as options and files have them and as their papers write them."""

from hf_mambalrp.viz.wording import shorten, visible

METHOD_NAMES = {
    "mambalrp": "MambaLRP",
    "expected_mambalrp": "Expected MambaLRP",
    "lrp_ln": "LRP (LN-rule)",
    "gradient_x_input": "Gradient × Input",
    "integrated_gradients": "Integrated Gradients",
    "smoothgrad": "SmoothGrad",
    "occlusion": "Occlusion",
    "raw_attention": "Raw Attention",
    "attention_rollout": "Attention Rollout",
    "mamba_attribution": "Mamba-Attribution",
    "latim": "LaTIM",
    "random": "Random",
}
"""Read without torch, so that a wrong name is refused at once; a test compares it with the table of methods."""
NAME = 40
"""Characters of a name that is not in the table."""


def method_name(key: str) -> str:
    """Return a method's name as its paper writes it; an unknown one stays as it is, made safe to show."""
    return METHOD_NAMES.get(key) or shorten(visible(key), NAME)
