"""Fusions end to end: real annotations, a tiny published CLIP, and ranks one query at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusecomp as fc
from fusecomp.fusions import ARTEMIS, CIRPLANT

DIM = 32  # of the tiny CLIP
Shared = Callable[[str], Path]

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("open_clip")]


class MaxSim(nn.Module):
    """A user's own: two query vectors, and four of each image; the best product of each."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(2 * DIM, 16)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        query: Tensor = self.project(torch.cat((image, text), dim=1))
        return query

    def similarity(self, query: Tensor, target: Tensor) -> Tensor:
        parts, rows = query.unflatten(1, (2, 8)), target.unflatten(1, (4, 8))
        products: Tensor = torch.einsum("qad,nbd->qnab", parts, rows).amax(dim=3).sum(dim=2)
        return products


def unit(x: Tensor) -> Tensor:
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length


def by_artemis(fusion: ARTEMIS, image: Tensor, text: Tensor, gallery: Tensor) -> Tensor:
    """The formula, with an attention on every candidate: one query's scores [N]."""
    x, r, m = unit(gallery), unit(image), unit(text)
    a, b = (fusion.attentions[term](m).softmax(dim=0) for term in ("EM", "IS"))
    return unit(a * x) @ unit(fusion.transform(m)) + unit(b * x) @ unit(b * r)


def by_cirplant(fusion: CIRPLANT, image: Tensor, text: Tensor, gallery: Tensor) -> Tensor:
    return unit(gallery) @ unit(fusion(image[None], text[None])[0])


def by_max_sim(fusion: MaxSim, image: Tensor, text: Tensor, gallery: Tensor) -> Tensor:
    vectors = fusion.project(torch.cat((image, text))).split(8)
    best = [torch.stack([x @ v for x in gallery.split(8, dim=1)]).amax(dim=0) for v in vectors]
    return best[0] + best[1]


METHODS: dict[str, tuple[Callable[[], Any], Callable[..., Tensor]]] = {
    "ARTEMIS": (lambda: ARTEMIS(DIM), by_artemis),
    "CIRPLANT": (lambda: CIRPLANT(DIM, layers=2, heads=4), by_cirplant),
    "MaxSim": (MaxSim, by_max_sim),
}


DATASETS: dict[str, Callable[[Shared], fc.Dataset]] = {
    "FashionIQ": lambda shared: fc.datasets.FashionIQ(shared("datasets/fashioniq"), "val"),
    "CIRR": lambda shared: fc.datasets.CIRR(shared("datasets/cirr"), "val"),
}


def encode(shared: Shared, data: fc.Dataset) -> fc.CachedEncoder:
    """The tiny CLIP's features, widened, of all texts and of an image drawn for each id."""
    clip = fc.encoders.OpenClipEncoder.from_clip4cir(shared("parity/clip_vit_checkpoint.pt"))
    texts, ids = list(data.texts()), list(data.image_ids)
    drawn = torch.randn(len(ids), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    blocks = (nn.functional.interpolate(block, size=(64, 64)) for block in drawn.split(512))
    with torch.no_grad():
        images = torch.cat([clip.encode_image(block) for block in blocks])
        words = [
            clip.encode_text(texts[start : start + 512]) for start in range(0, len(texts), 512)
        ]
    return fc.CachedEncoder.from_arrays(ids, images.double(), texts, torch.cat(words).double())


@pytest.mark.filterwarnings("ignore:CIRPLANT takes text_tokens:UserWarning")
@pytest.mark.parametrize("name", DATASETS)
def test_ranks_are_those_of_one_query_at_a_time(shared: Shared, name: str) -> None:
    data = DATASETS[name](shared)
    encoder = encode(shared, data)
    for make, score in METHODS.values():
        torch.manual_seed(0)
        model = fc.ComposedEncoder(encoder, make().double()).eval()
        evaluation = fc.evaluate(model, data)
        for group, found in evaluation.ranking.items():
            assert found.ranks is not None
            hits = (found.ranks <= 10).double().mean()
            recall = evaluation[f"{group}/recall@10".removeprefix("/")]
            assert recall == pytest.approx(100 * float(hits))
            for row in range(0, len(found.task.queries), 97):
                rank, best = one_query(encoder, model.fusion, found.task, row, score)
                assert int(found.ranks[row]) == rank
                assert found.indices[row, :10].tolist() == best


def one_query(
    encoder: fc.CachedEncoder, fusion: Any, task: fc.Task, row: int, score: Any
) -> tuple[int, list[int]]:
    """The target's rank and the ten best positions of the gallery."""
    query, place = task.queries[row], {image_id: n for n, image_id in enumerate(task.gallery)}
    images = encoder.encode_image(encoder.lookup["image"]([query.reference_id, *task.gallery]))
    text = encoder.encode_text(encoder.lookup["text"](query.texts)).mean(dim=0)
    with torch.no_grad():
        scores = score(fusion, images[0], text, images[1:])
    if task.exclude is not None:
        scores[[place[image_id] for image_id in task.exclude[row]]] = -torch.inf
    target = scores[place[str(query.target_id)]]
    return int((scores > target).sum()) + 1, scores.argsort(descending=True)[:10].tolist()
