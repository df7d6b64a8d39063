"""PyG's attention-based aggregations over the kernel: the same names, arguments and weights."""

from graphformer.nn.aggr.attentional import AttentionalAggregation
from graphformer.nn.aggr.set_transformer import SetTransformerAggregation

__all__ = ["AttentionalAggregation", "SetTransformerAggregation"]
