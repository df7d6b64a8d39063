import dataclasses
import subprocess
import sys

import pytest

from graphformer import GraphformerError
from graphformer.models import GraphTransformerConfig


def test_importing_the_config_imports_neither_torch_nor_pyg():
    code = (
        "import sys; from graphformer.models import GraphTransformerConfig; GraphTransformerConfig();"
        "print(sorted({'torch', 'torch_geometric'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_config_is_plain_and_frozen():
    config = GraphTransformerConfig(layers=2)
    assert GraphTransformerConfig(**dataclasses.asdict(config)) == config
    assert all(type(value) in (int, float, str, bool) for value in dataclasses.asdict(config).values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.layers = 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 60}, "channels must be a multiple of heads = 8; got 60"),
        ({"layers": 0}, "layers must be at least 1; got 0"),
        ({"walk_steps": -1}, "walk_steps must not be negative; got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
        ({"channels": "64"}, "channels must be an integer; got '64'"),
        ({"channels": 64.0}, "channels must be an integer; got 64.0"),
        ({"layers": 1.5}, "layers must be an integer; got 1.5"),
        ({"heads": True}, "heads must be an integer; got True"),
        ({"laplacian": 0.0}, "laplacian must be an integer; got 0.0. Pass 0 to do without"),
        ({"attention_dropout": "0"}, r"attention_dropout must lie in \[0, 1\); got '0'"),
        ({"virtual_node": "no"}, "virtual_node must be a bool; got 'no'. Pass True or False"),
        ({"pattern": None}, "pattern must be a str; got None. Write it as text"),
        ({"norm": "bach"}, "norm must be one of batch, layer; got 'bach'. Did you mean batch?"),
        ({"pooling": "max"}, "pooling must be one of sum, mean; got 'max'"),
    ],
    ids=str,
)
def test_config_refuses_bad_settings(settings, message):
    with pytest.raises(GraphformerError, match=message):
        GraphTransformerConfig(**settings)
