"""A fusion with a similarity of its own: composing, searching, ranking, evaluating, saving."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fusecomp as fc
from fusecomp.datasets import Triplets
from fusecomp.evaluation import _features, cosines
from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import search, search_targets
from fusecomp.types import Similarity

DIM, IMAGES = 6, 40
IDS = [f"image {number}" for number in range(IMAGES)]
TEXTS = ["is blue", "is red", "has dots"]


class MaxSim(nn.Module):
    """Two query vectors against two of each image: the sum of the best products."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(DIM, DIM)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return torch.cat([self.project(image), text[:, :4]], dim=1)  # wider than the images

    def similarity(self, query: Tensor, target: Tensor) -> Tensor:
        parts = query[:, :DIM].unflatten(1, (2, 3))
        rows = target.unflatten(1, (2, 3))
        products = torch.einsum("qad,nbd->qnab", parts, rows)
        return products.amax(dim=3).sum(dim=2)


def make(fusion: fc.Fusion) -> fc.ComposedEncoder:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(n, DIM, generator=generator) for n in (IMAGES, len(TEXTS)))
    return fc.ComposedEncoder(fc.CachedEncoder.from_arrays(IDS, images, TEXTS, texts), fusion)


def data() -> Triplets:
    rows = [
        fc.Triplet(f"q{n}", IDS[n], (TEXTS[n % 3],), IDS[(7 * n + 3) % IMAGES])
        for n in range(IMAGES)
    ]
    return Triplets(rows, ks=(1, 5, 10))


@pytest.fixture(params=[MaxSim, lambda: ARTEMIS(DIM)], ids=["MaxSim", "ARTEMIS"])
def model(request: pytest.FixtureRequest) -> fc.ComposedEncoder:
    torch.manual_seed(1)
    return make(request.param()).eval()


def pairs(model: fc.ComposedEncoder, query: Tensor, gallery: Tensor) -> Tensor:
    """The similarity of one pair at a time."""
    assert model.similarity is not None
    return torch.stack(
        [torch.cat([model.similarity(q[None], t[None])[0] for t in gallery]) for q in query]
    )


def test_queries_are_those_of_the_fusion_and_galleries_those_of_the_encoder(
    model: fc.ComposedEncoder,
) -> None:
    query = model.encode_query(IDS[:3], TEXTS)
    fused = model.fusion(model.encoder.encode_image(IDS[:3]), model.encoder.encode_text(TEXTS))
    assert torch.equal(query, fused)
    assert query.shape[1] != DIM
    assert torch.equal(model.encode_gallery(IDS), model.encoder.encode_image(IDS))


def test_search_orders_by_the_similarity(model: fc.ComposedEncoder) -> None:
    query, gallery = model.encode_query(IDS[:3], TEXTS), model.encode_gallery(IDS)
    scores, indices = search(query, gallery, 5, similarity=model.similarity, chunk=2)
    expected = pairs(model, query, gallery).sort(dim=1, descending=True)
    torch.testing.assert_close(scores, expected.values[:, :5])
    assert torch.equal(indices, expected.indices[:, :5])


def test_targets_are_ranked_and_excluded_ids_are_not_found(model: fc.ComposedEncoder) -> None:
    query, gallery = model.encode_query(IDS[:3], TEXTS), model.encode_gallery(IDS)
    best = pairs(model, query, gallery).argsort(dim=1, descending=True)
    found = search_targets(
        query, gallery, best[:, 2], 1, exclude=best[:, 0], similarity=model.similarity
    )
    assert found.ranks.tolist() == [2, 2, 2]
    assert torch.equal(found.indices[:, 0], best[:, 1])


def test_evaluation_ranks_by_the_similarity(model: fc.ComposedEncoder) -> None:
    dataset = data()
    evaluation = fc.evaluate(model, dataset)
    query = model.encode_query(
        [q.reference_id for q in dataset.triplets()], [q.texts[0] for q in dataset.triplets()]
    )
    gallery = model.encode_gallery(list(dataset.image_ids))
    scores = pairs(model, query, gallery)
    position = {image_id: n for n, image_id in enumerate(dataset.image_ids)}
    hits = []
    for row, triplet in enumerate(dataset.triplets()):
        scores[row, position[triplet.reference_id]] = -torch.inf
        target = scores[row, position[str(triplet.target_id)]]
        hits.append(int((scores[row] > target).sum()) < 5)
    assert evaluation["recall@5"] == pytest.approx(100 * np.mean(hits))


def test_a_saved_model_compares_alike(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = make(ARTEMIS(DIM)).eval()
    model.save(tmp_path / "model")
    again = fc.ComposedEncoder.load(tmp_path / "model", model.encoder)
    assert torch.equal(again.encode_query(IDS[:3], TEXTS), model.encode_query(IDS[:3], TEXTS))
    assert dict(fc.evaluate(again, data())) == dict(fc.evaluate(model, data()))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda q, t: q[:2] @ t.T,
            r"the similarity returned \[2, 64\] on cpu for queries \[64, 6\] and images "
            r"\[64, 6\], expected \[64, 64\] on cpu",
        ),
        (lambda q, t: (q @ t.T).to("meta"), r"returned \[64, 64\] on meta .* on cpu"),
        (lambda q, t: (q @ t.T).log(), "the similarity returned NaN or infinity"),
        (lambda q, t: (q @ t.T).long(), "what the similarity returns must have a floating dtype"),
    ],
    ids=["shape", "device", "NaN", "dtype"],
)
def test_what_a_similarity_may_not_return_is_named(returned: Similarity, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(torch.randn(3, DIM), torch.randn(IMAGES, DIM), 5, similarity=returned)
    with pytest.raises(TypeError, match="what the similarity returns must be a torch tensor"):
        search(torch.ones(3, 9), torch.ones(IMAGES, DIM), 5, similarity=lambda q, t: [1.0])  # type: ignore[arg-type,return-value]


def test_cosines_are_of_its_scores_and_say_so(model: fc.ComposedEncoder) -> None:
    dataset = data()
    queries = dataset.triplets()
    query = model.encode_query([q.reference_id for q in queries], [q.texts[0] for q in queries])
    scores = pairs(model, query, model.encode_gallery(IDS))
    targets = torch.tensor([IDS.index(str(q.target_id)) for q in queries])
    others = torch.ones_like(scores, dtype=torch.bool)
    others[torch.arange(IMAGES), targets] = False
    others[torch.arange(IMAGES), torch.arange(IMAGES)] = False  # the references
    found = cosines(model, dataset)
    assert found.measure == found.to_dict()["measure"] == "similarity"
    assert repr(found).startswith("Cosines(similarity: target ")
    assert found.target.mean == pytest.approx(float(scores.gather(1, targets[:, None]).mean()))
    assert found.others.mean == pytest.approx(float(scores[others].mean()))
    assert found.others.std == pytest.approx(float(scores[others].std(correction=0)))
    assert found.others.pairs == int(others.sum())


def test_a_query_of_another_number_of_rows_is_named() -> None:
    class Flat(MaxSim):
        def forward(self, image: Tensor, text: Tensor) -> Tensor:
            return image[:1]

    with pytest.raises(ValueError, match=r"the fusion returned \[1, 6\], expected \[3, E\]"):
        make(Flat()).encode_query(IDS[:3], TEXTS)


def test_a_loss_without_it_is_refused_when_the_trainer_is_made(model: fc.ComposedEncoder) -> None:
    config = fc.StageConfig(epochs=1, batch_size=8, lr=1e-3)
    together = fc.losses.CombinedLoss(
        {"find": (1.0, fc.InfoNCE(0.1)), "align": (1.0, fc.losses.CosineAlignmentLoss())}
    )
    outer = fc.losses.CombinedLoss({"all": (1.0, together)})
    losses: list[tuple[fc.Loss, str]] = [
        (fc.losses.CosineAlignmentLoss(), "the loss CosineAlignmentLoss"),
        (together, r"the loss 'align' of CombinedLoss \(CosineAlignmentLoss\)"),
        (
            outer,
            r"the loss 'all' of CombinedLoss \('align' of CombinedLoss \(CosineAlignmentLoss\)",
        ),
        (lambda query, target: query, "the loss function"),
    ]
    for loss, name in losses:
        with pytest.raises(ValueError, match=f"{name}.* does not name the keyword similarity"):
            fc.Trainer(model, loss=loss, config=config)


def test_such_a_fusion_trains_and_finds_more(model: fc.ComposedEncoder) -> None:
    dataset = data()
    before = fc.evaluate(model, dataset)["recall@10"]
    config = fc.StageConfig(epochs=30, batch_size=10, lr=1e-2)
    loss = fc.losses.CombinedLoss({"find": (1.0, fc.InfoNCE(0.5))})
    run = fc.Trainer(model, loss=loss, config=config).fit(dataset, dataset)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert fc.evaluate(run.model, dataset)["recall@10"] > before


class Projected(nn.Module):
    """A fusion whose similarity the tests choose."""

    def __init__(self, similarity: Any = None) -> None:
        super().__init__()
        self.project = nn.Linear(DIM, DIM)
        self.similarity = similarity

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        query: Tensor = self.project(image)
        return query


def product(query: Tensor, target: Tensor) -> Tensor:
    return query @ target.T


def fit(fusion: fc.Fusion, **options: Any) -> fc.Run:
    config = fc.StageConfig(epochs=1, batch_size=10, lr=1e-2, **options)
    return fc.Trainer(make(fusion), loss=fc.InfoNCE(0.5), config=config).fit(data(), data())


@pytest.mark.parametrize("similarity", [0.5, "cosine", torch.ones(2)])
def test_a_similarity_that_cannot_be_called_is_named(similarity: Any) -> None:
    with pytest.raises(TypeError, match=r"Projected\.similarity must be a method .* or None, got"):
        make(Projected(similarity))


def test_none_is_no_similarity() -> None:
    model = make(Projected())
    assert model.similarity is None
    torch.testing.assert_close(model.encode_query(IDS[:3], TEXTS).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_of_another_floating_dtype_are_compared(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    fusion = Projected(lambda query, target: (query @ target.T).to(dtype))
    assert np.isfinite(fit(fusion).history[-1]["loss"])
    query, gallery = torch.randn(3, DIM), torch.randn(IMAGES, DIM)
    scores, _ = search(query, gallery, 5, similarity=fusion.similarity)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close = 0.1 if dtype == torch.bfloat16 else 0.01
    expected = product(query, gallery).sort(dim=1, descending=True).values[:, :5]
    torch.testing.assert_close(scores.float(), expected, rtol=0, atol=close)


def test_weights_in_a_similarity_are_refused_in_training_and_compare_otherwise() -> None:
    weights = nn.Parameter(torch.ones(DIM))
    fusion = Projected(lambda query, target: (query * weights) @ target.T)
    with pytest.raises(ValueError, match="the similarity has weights that learn"):
        fit(fusion)
    same = Projected(product)
    same.load_state_dict(fusion.state_dict())
    assert dict(fc.evaluate(make(fusion), data())) == dict(fc.evaluate(make(same), data()))
    weights.requires_grad_(False)
    assert np.isfinite(fit(fusion).history[-1]["loss"])


@pytest.mark.parametrize("broken", ["query", "similarity"])
def test_a_step_that_is_not_finite_is_named_or_left_out(broken: str) -> None:
    torch.manual_seed(0)
    scale = {"query": 1.0, "similarity": torch.nan}[broken]
    fusion = Projected(lambda query, target: query @ target.T * scale)
    if broken == "query":
        with torch.no_grad():
            fusion.project.bias[0] = torch.nan
    message = {"query": "have features that hold NaN", "similarity": "the loss itself gives NaN"}
    with pytest.raises(fc.training.NonFiniteError, match=message[broken]):
        fit(fusion)
    with pytest.raises(fc.training.NonFiniteError, match="each of the 4 steps"):
        fit(fusion, on_nonfinite="skip")


def test_queries_of_several_widths_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_features, "_FUSE_ROWS", 30)
    with pytest.raises(ValueError, match=r"queries of \[10, 30\] numbers"):
        fc.evaluate(make(Widening()), data())


class Widening(Projected):
    """Queries as wide as the batch is long."""

    def __init__(self) -> None:
        super().__init__(lambda query, target: query[:, :1] @ target.T[:1])

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return image[:, :1].expand(-1, len(image))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(nn.DataParallel, id="parallel"),
        pytest.param(
            partial(torch.compile, backend="eager"), id="compiled", marks=pytest.mark.heavy
        ),
    ],
)
def test_a_wrapped_fusion_compares_as_the_one_inside(wrap: Any) -> None:
    torch.manual_seed(0)
    fusion = ARTEMIS(DIM)
    expected, plain = fc.evaluate(make(fusion), data()), fit(copy.deepcopy(fusion)).history
    wrapped = wrap(fusion)
    assert dict(fc.evaluate(make(wrapped), data())) == dict(expected)
    assert fit(wrapped).history[-1]["loss"] == pytest.approx(plain[-1]["loss"])


def test_a_saved_fusion_of_a_users_own_is_given_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make(MaxSim()).eval()
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds the fusion MaxSim, which is not rebuilt"):
        fc.ComposedEncoder.load(tmp_path / "model", model.encoder)
    again = fc.ComposedEncoder.load(tmp_path / "model", model.encoder, MaxSim())
    assert dict(fc.evaluate(again, data())) == dict(fc.evaluate(model, data()))


def test_a_saved_similarity_is_told_from_another(tmp_path: Path) -> None:
    model = make(Projected(lambda query, target: query @ target.T))
    model.save(tmp_path / "model")
    other = Projected(lambda query, target: -query @ target.T)
    with pytest.raises(ValueError, match=r"other settings .* fusion\.similarity was"):
        fc.ComposedEncoder.load(tmp_path / "model", model.encoder, other)


@pytest.mark.parametrize("make_fusion", [fc.Sum, lambda: fc.Combiner(DIM), lambda: ARTEMIS(DIM)])
@pytest.mark.parametrize("of_fusion", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_features", [torch.float16, torch.float32, torch.float64])
def test_features_and_fusion_may_have_two_dtypes(
    make_fusion: Any, of_fusion: torch.dtype, of_features: torch.dtype
) -> None:
    torch.manual_seed(0)
    fusion = make_fusion().to(of_fusion).eval()
    images, texts = torch.randn(IMAGES, DIM).to(of_features), torch.randn(3, DIM).to(of_features)
    encoder = fc.CachedEncoder.from_arrays(IDS, images, TEXTS, texts)
    model = fc.ComposedEncoder(encoder, fusion)
    query, gallery = model.encode_query(IDS[:3], TEXTS), model.encode_gallery(IDS)
    assert query.dtype == gallery.dtype
    search(query, gallery, 5, similarity=model.similarity)
    assert 0 <= fc.evaluate(model, data())["recall@5"] <= 100
    assert cosines(model, data()).target.pairs == IMAGES
