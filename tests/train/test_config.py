from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest

from graphformer._errors import InputError
from graphformer.data import names
from graphformer.models.config import GraphTransformerConfig
from graphformer.train import TrainConfig, read_config, recipe
from graphformer.train.config import config_from_mapping, write_config
from graphformer.train.recipes import names as recipe_names


def test_a_config_survives_its_file(tmp_path):
    config = TrainConfig(dataset="ogbg-molhiv", epochs=7, learning_rate=3e-4, model=GraphTransformerConfig(layers=2))
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


def test_a_file_may_hold_some_settings_only(tmp_path):
    (tmp_path / "c.yaml").write_text("epochs: 3\nlearning_rate: 1e-4\nmodel:\n  channels: 32\n")
    config = read_config(tmp_path / "c.yaml")
    assert config == TrainConfig(epochs=3, learning_rate=1e-4, model=GraphTransformerConfig(channels=32))


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("")
    assert read_config(tmp_path / "c.yaml") == TrainConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "epoch: 3",
            r"config: a key of .*c\.yaml must be one of \d+ names; got 'epoch'. Did you mean epochs.* dataset, ",
        ),
        ("model: {chanels: 3}", r"one of \d+ names; got 'model.chanels'. Did you mean model.channels.*: model.ch"),
        ("model: 3", "config: model must be a mapping of settings; got int. Write `key: value`"),
        ("- 1", r"config: .*c\.yaml must be a mapping of settings; got list"),
        ("epochs: many", r"config: .*c\.yaml must hold values of the right kind; got .*epochs.*many"),
        ("epochs: [", r"config: .*c\.yaml must be a readable YAML file; got"),
        ("epochs: 0", "TrainConfig: epochs must be at least 1; got 0"),
        ("model: {channels: 7}", "GraphTransformerConfig: channels must be a multiple of heads"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "c.yaml")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match="none.yaml must be a readable YAML file; got .*No such file"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("epochs", 0, "be at least 1"),
        ("batch_size", -2, "be at least 1"),
        ("weight_decay", -0.1, "be at least 0"),
        ("seed", 2**32, r"lie below 2\^32, in all seeds"),
        ("gradient_clip", -1.0, "be at least 0"),
        ("seed", -1, "be at least 0"),
        ("num_workers", -1, "be at least 0"),
        ("learning_rate", 0.0, "be positive"),
        ("warmup", 1.0, r"lie in \[0, 1\)"),
        ("average", -0.5, r"lie in \[0, 1\)"),
        ("precision", "8-bit", "be one of 32-true, bf16-mixed"),
    ],
)
def test_values_that_no_run_can_have_are_refused(setting, value, rule):
    with pytest.raises(InputError, match=f"TrainConfig: {setting} must {rule}; got '?{value}'?"):
        replace(TrainConfig(), **{setting: value})


def test_each_device_has_a_share_of_a_batch():
    assert replace(TrainConfig(), devices=65).batch_size is None  # known once the data set is
    with pytest.raises(InputError, match="TrainConfig: devices must be at most batch_size = 64; got 65"):
        replace(TrainConfig(), devices=65, batch_size=64)


def test_every_recipe_is_of_a_known_data_set_and_can_be_read():
    assert "ogbg-molesol" in recipe_names()
    for name in recipe_names():
        assert recipe(name).dataset in names()
        assert recipe(name) != TrainConfig(dataset=name)


def test_without_a_recipe_the_defaults_hold():
    assert recipe("ogbg-moltoxcast") == TrainConfig(dataset="ogbg-moltoxcast")


def test_every_setting_is_described():
    for kind in (TrainConfig, GraphTransformerConfig):
        missing = [entry.name for entry in fields(kind) if f"\n        {entry.name}: " not in kind.__doc__]
        assert not missing


def test_a_mapping_names_its_place_in_the_message():
    with pytest.raises(InputError, match="a key of the moon must be one of"):
        config_from_mapping({"colour": 1}, "the moon")
    assert asdict(config_from_mapping({}, "nowhere")) == asdict(TrainConfig())


def test_settings_are_read_without_torch():
    code = "import sys, graphformer.train.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
