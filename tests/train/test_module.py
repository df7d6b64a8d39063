from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch_geometric.data import Batch

from graphformer.models import transform
from graphformer.train.loaders import GraphBatches
from graphformer.train.module import GraphModule, TaskFacts
from graphformer.train.objectives import label_statistics


def test_missing_labels_do_not_enter_the_statistics():
    y = torch.tensor([[1.0, 7.0, 2.0], [3.0, torch.nan, 2.0], [8.0, 9.0, torch.nan]])
    mean, scale = label_statistics(y)
    assert mean.tolist() == [4.0, 8.0, 2.0]
    assert scale.tolist() == pytest.approx([math.sqrt(26 / 3), 1.0, 1.0])


@pytest.fixture
def module(small, task):
    made = GraphModule(small, TaskFacts.of(task), steps=20, measure=task.evaluate)
    made.look_at(task.train)
    return made


def test_regression_is_learnt_in_standard_units_and_told_in_the_labels(module, task, small):
    batch = Batch.from_data_list([transform(small.model)(graph) for graph in task.train])
    mean = torch.cat([graph.y for graph in task.train]).mean()
    assert module.objective.mean.item() == pytest.approx(mean.item())
    module.eval()
    module.averaged.module.head.lin[3].weight.data.zero_()
    module.averaged.module.head.lin[3].bias.data.fill_(2.0)
    expected = module.objective.mean + 2 * module.objective.scale
    assert module.predict_batch(batch)[:, 0].tolist() == pytest.approx([expected.item()] * 10)


def test_the_regression_loss_leaves_out_missing_labels(module):
    module.objective.mean.fill_(1.0)
    module.objective.scale.fill_(2.0)
    output = torch.tensor([[0.5], [3.0], [0.0]], requires_grad=True)
    loss = module.objective(output, torch.tensor([[3.0], [torch.nan], [1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(0.125)
    assert output.grad[1].item() == 0.0


def test_the_classification_loss_leaves_out_missing_labels(small, task):
    facts = replace(TaskFacts.of(task), task_type="binary classification", num_tasks=2, num_outputs=2)
    module = GraphModule(small, facts)
    output = torch.tensor([[0.0, 5.0], [2.0, -1.0]], requires_grad=True)
    loss = module.objective(output, torch.tensor([[1.0, torch.nan], [torch.nan, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx((math.log(2) + math.log1p(math.exp(-1))) / 2)
    assert output.grad[0, 1].item() == 0.0
    assert module.objective(output.detach(), torch.full((2, 2), torch.nan)).item() == 0.0


@pytest.mark.parametrize(("average", "expected"), [(0.0, 4.0), (0.1, 3.7), (0.99, 1 + 3 * 9 / 11)])
def test_the_running_mean_follows_the_weights(small, task, average, expected):
    module = GraphModule(replace(small, average=average), TaskFacts.of(task))
    counts = [name for name, value in module.model.named_buffers() if not value.is_floating_point()]
    assert counts
    for value in (1.0, 4.0):
        module.model.head.lin[3].bias.data.fill_(value)
        for name in counts:
            module.model.get_buffer(name).fill_(int(value))
        module.follow()
    assert module.averaged.module.head.lin[3].bias.item() == pytest.approx(expected)
    assert {module.averaged.module.get_buffer(name).item() for name in counts} == {4}
    groups = module.configure_optimizers()["optimizer"].param_groups
    trained = {id(weight) for group in groups for weight in group["params"]}
    assert trained == {id(weight) for weight in module.model.parameters()}


def test_the_learning_rate_rises_and_falls(module, small):
    optimizer = module.configure_optimizers()
    schedule = optimizer["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        optimizer["optimizer"].step()
        schedule.step()
    peak = small.learning_rate
    assert rates[:3] == pytest.approx([peak / 2, peak, peak])
    assert rates[11] == pytest.approx(peak / 2)
    assert all(later < earlier for earlier, later in zip(rates[2:], rates[3:], strict=False))
    assert schedule.get_last_lr()[0] == pytest.approx(0.0)


def test_an_epoch_has_one_order_whatever_came_before():
    fresh, used = GraphBatches(50, 7, 1), GraphBatches(50, 7, 1)
    for epoch in range(3):
        used.set_epoch(epoch)
        list(used)
    fresh.set_epoch(2)
    assert list(fresh) == list(used)
    assert list(GraphBatches(50, 7, 1)) != list(GraphBatches(50, 7, 2))
    assert len(fresh) == 8


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_the_optimizer_is_the_one_asked_for(small, task, name, kind):
    module = GraphModule(replace(small, optimizer=name, weight_decay=0.25), TaskFacts.of(task), steps=4)
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["weight_decay"] == 0.25


def test_the_facts_come_back_from_a_checkpoint_and_from_json_also_where_names_are_not_told(task):
    facts = TaskFacts.of(replace(task, task_names=("logP",)))
    stored = asdict(facts)
    assert TaskFacts.read(stored) == facts
    assert TaskFacts.read(json.loads(json.dumps(stored))).task_names == ("logP",)
    del stored["task_names"]  # as in files of before
    assert TaskFacts.read(stored) == replace(facts, task_names=())
