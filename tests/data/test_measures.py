from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score, mean_absolute_error

from graphformer._errors import DataError
from graphformer.data._quiet_ogb import ogb_module
from graphformer.data.measures import accuracy, average_precision, macro_f1, mae

NAN = float("nan")


def test_mae_is_scikit_learns_and_leaves_out_missing_labels():
    y_true, y_pred = torch.randn(7, 3), torch.randn(7, 3)
    assert mae(y_true, y_pred) == pytest.approx(mean_absolute_error(y_true.numpy(), y_pred.numpy()), abs=1e-6)
    y_true = torch.tensor([[1.0, NAN], [3.0, 0.0]])
    assert mae(y_true, torch.tensor([[2.0, 9.0], [3.0, 4.0]])) == pytest.approx((0.5 + 4.0) / 2)


def test_average_precision_is_that_of_ogb():
    y_true = (torch.rand(40, 128) < 0.3).float()
    y_true[torch.rand(40, 128) < 0.2] = NAN
    y_true[:, 5] = 0.0  # a task of one class does not count
    y_pred = 30 * torch.randn(40, 128)
    official = ogb_module("ogb.graphproppred").Evaluator("ogbg-molpcba").eval({"y_true": y_true, "y_pred": y_pred})
    assert average_precision(y_true, y_pred) == pytest.approx(official["ap"], abs=1e-9)


def test_accuracy_leaves_out_missing_labels():
    y_pred = torch.eye(3)[torch.tensor([0, 1, 2, 2])]
    assert accuracy(torch.tensor([[0], [1], [0], [-1]]), y_pred) == pytest.approx(2 / 3)


def test_macro_f1_is_scikit_learns_over_the_classes_that_occur():
    y_true, y_pred = torch.randint(0, 4, (50, 1)), torch.randn(50, 6)
    y_pred[:, 5] = -9.0
    expected = f1_score(y_true[:, 0].numpy(), y_pred.argmax(1).numpy(), average="macro", zero_division=0)
    assert macro_f1(y_true, y_pred) == pytest.approx(expected)
    # By hand: class 0 has precision 1/2 and recall 1, class 1 nothing right, class 2 occurs nowhere.
    assert macro_f1(torch.tensor([[0], [1]]), torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("measure", [mae, average_precision, accuracy, macro_f1])
def test_predictions_that_are_not_finite_are_refused(measure):
    with pytest.raises(DataError, match="evaluate: y_pred must be finite; got NaN or infinity"):
        measure(torch.zeros(2, 1), torch.tensor([[NAN], [0.0]]))


@pytest.mark.parametrize(
    ("measure", "missing"),
    [(mae, NAN), (average_precision, NAN), (average_precision, 1.0), (accuracy, -1), (macro_f1, -1)],
)
def test_without_labels_there_is_no_measure(measure, missing):
    y_true = torch.full((3, 1), missing)
    with pytest.raises(DataError, match="evaluate: y_true must have labels that .* is defined on; got none"):
        measure(y_true, torch.zeros(3, 1))
