"""The architectures that hospitals train, by name."""

from hbdp_fed.models.dp_ready import Replacement, grouped
from hbdp_fed.models.registry import (
    MODELS,
    MONAI,
    build_model,
    fitting_spec,
    initial_weights,
    load_weights,
    replaced_in,
    title_of,
)
from hbdp_fed.models.starting import starting_weights
from hbdp_fed.models.storage import (
    read_facts,
    read_parts,
    read_weights,
    save_parts,
    save_weights,
    weights_sha256,
)

__all__ = [
    "MODELS",
    "MONAI",
    "Replacement",
    "build_model",
    "fitting_spec",
    "grouped",
    "initial_weights",
    "load_weights",
    "read_facts",
    "read_parts",
    "read_weights",
    "replaced_in",
    "save_parts",
    "save_weights",
    "starting_weights",
    "title_of",
    "weights_sha256",
]
