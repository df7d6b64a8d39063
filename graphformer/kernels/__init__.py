"""One kernel contract: `attend`, its weights, its scores, its backends (DESIGN.md section 6)."""

from graphformer.kernels.api import attend, attention_weights, explain
from graphformer.kernels.problem import Additive
from graphformer.kernels.watch import watch_attention

__all__ = ["Additive", "attend", "attention_weights", "explain", "watch_attention"]
