"""What the server that cells are forked from imports: all slow packages, none of which computes."""

from importlib import import_module

from bench.parent import die_with_parent

# First: the imports take longer than a worker whose driver was killed lives on.
die_with_parent()
for module in (
    *("lightning_fabric", "monai.networks.nets"),
    "torch._dynamo",  # optimisers import it at their first step
    "bench.cells.execute",
):
    import_module(module)

from bench.cells.execute import KINDS  # noqa: E402

for place in sorted({place.split(":")[0] for place in KINDS.values()}):
    import_module(place)
