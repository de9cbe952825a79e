"""What the server that cells are forked from imports: all slow packages, none of which computes."""

from importlib import import_module

import lightning_fabric  # noqa: F401
import monai.networks.nets  # noqa: F401
import torch._dynamo  # noqa: F401  - optimisers import it at their first step

from bench.cells.execute import KINDS

for place in sorted({place.split(":")[0] for place in KINDS.values()}):
    import_module(place)
