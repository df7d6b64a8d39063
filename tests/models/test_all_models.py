import model_laws
import pytest

from graphformer.models.config import MODELS

CONFIGS = {name: model_laws.small(kind) for name, kind in MODELS.items()}
CONFIGS["gated_transformer, layer"] = model_laws.small(MODELS["gated_transformer"], norm="layer")
SMALL = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
LEVELS = pytest.mark.parametrize("level", ["graph", "node", "link"])


@SMALL
@LEVELS
def test_numbering_of_the_nodes_does_not_matter(config, level):
    model_laws.check_permutation(config, level)


@SMALL
@LEVELS
def test_a_batch_is_its_graphs(config, level):
    model_laws.check_batching(config, level)


@SMALL
def test_degenerate_graphs_are_finite(config):
    model_laws.check_degenerate(config)


@SMALL
def test_edges_may_carry_nothing_and_nodes_numbers(config):
    model_laws.check_without_edge_features(config)


@SMALL
def test_graphs_may_carry_numbers(config):
    model_laws.check_graph_numbers(config)


@SMALL
@LEVELS
def test_gradients_reach_every_parameter(config, level):
    model_laws.check_gradients(config, level)


@SMALL
def test_one_seed_is_one_model_and_it_can_be_saved(config):
    model_laws.check_deterministic(config)


@SMALL
def test_runs_in_every_precision(config):
    model_laws.check_precisions(config)


@SMALL
def test_ten_molecules_are_learned_by_heart(config):
    model_laws.check_ten_molecules(config)
