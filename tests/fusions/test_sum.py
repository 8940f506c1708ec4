"""The normalised sum."""

import numpy as np
import torch
from golden import PUBLISHED

from fusecomp.fusions import Sum


def test_it_equals_the_published_numbers() -> None:
    published = np.load(PUBLISHED / "combiner.npz")
    query = Sum()(torch.from_numpy(published["image"]), torch.from_numpy(published["text"]))
    expected = published["sum"]
    np.testing.assert_allclose(query.numpy(), expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_it_equals_the_formula_in_loops() -> None:
    image, text = torch.randn(2, 5, 3, dtype=torch.float64)
    query = Sum()(image, text).numpy()
    for row in range(5):
        total = [float(image[row, d] + text[row, d]) for d in range(3)]
        length = sum(x * x for x in total) ** 0.5
        np.testing.assert_allclose(query[row], [x / length for x in total], rtol=1e-12)


def test_opposite_features_give_a_finite_query() -> None:
    image = torch.ones(1, 3, requires_grad=True)
    query = Sum()(image, -torch.ones(1, 3))
    query.sum().backward()
    assert query.tolist() == [[0, 0, 0]]
    assert image.grad is not None
    assert image.grad.isfinite().all()
