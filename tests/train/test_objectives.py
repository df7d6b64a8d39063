from __future__ import annotations

import math

import pytest
import torch

from graphformer._errors import InputError
from graphformer.train.objectives import objective


def test_the_classes_of_missing_labels_do_not_count():
    loss = objective("multiclass classification", num_tasks=1, num_outputs=3)
    output = torch.tensor([[2.0, 0.0, 0.0], [9.0, 9.0, 9.0]], requires_grad=True)
    value = loss(output, torch.tensor([[0], [-1]]))
    value.backward()
    assert value.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)))
    assert output.grad[1].tolist() == [0.0, 0.0, 0.0]
    assert loss(output.detach(), torch.tensor([[-1], [-1]])).item() == 0.0
    assert loss.predict(output.detach()).sum(1).tolist() == pytest.approx([1.0, 1.0])


def test_words_are_learnt_with_their_end_and_unknown_ones():
    loss = objective("subtoken prediction", num_tasks=1, num_outputs=3, length=2)
    assert loss.width == 10  # each place says one of three words, "unknown" or "end"
    names = torch.tensor([[2, -1, -1], [7, 0, 1]])  # one word; an unknown word, one more, and one beyond the length
    places = [2, 4, 3, 0]
    certain = torch.full((4, 5), -50.0)
    certain[torch.arange(4), torch.tensor(places)] = 50.0
    output = certain.view(2, 10)
    assert loss(output, names).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(-output, names).item() > 10
    assert loss.predict(output).tolist() == [[2, -1], [3, 0]]
    ended_first = certain[[1, 0]].view(1, 10)
    assert loss.predict(ended_first).tolist() == [[-1, -1]]


def test_a_name_shorter_than_the_length_is_filled_up_with_ends():
    loss = objective("subtoken prediction", num_tasks=1, num_outputs=2, length=3)
    certain = torch.full((3, 4), -50.0)
    certain[torch.arange(3), torch.tensor([1, 3, 3])] = 50.0
    assert loss(certain.view(1, 12), torch.tensor([[1]])).item() == pytest.approx(0.0, abs=1e-6)


def test_the_absolute_error_is_minimised_where_it_is_measured():
    labels = torch.tensor([[0.0], [2.0]])
    absolute, squared = (objective("regression", 1, 1, metric=metric) for metric in ("mae", "rmse"))
    for loss in (absolute, squared):
        loss.prepare(labels)
    output = torch.tensor([[2.0], [1.0]])
    assert absolute(output, labels).item() == pytest.approx(1.5)
    assert squared(output, labels).item() == pytest.approx(4.5)
    assert absolute.predict(output).tolist() == [[3.0], [2.0]]


def test_an_unknown_type_is_refused():
    with pytest.raises(InputError, match="objective: task_type must be one of .*; got 'ranking'"):
        objective("ranking", 1, 1)
