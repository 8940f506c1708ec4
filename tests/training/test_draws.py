"""Random numbers of loads, encoders and fusions are functions of seed, epoch, step and image."""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import CONFIG, DIM, Toy, WordText, assert_equal_weights, load

import fusecomp as fc
from fusecomp.training import batches


def noise() -> float:
    """Drawn from all three streams."""
    return random.random() + np.random.rand() + torch.rand(()).item()


def noisy_load(path: Path) -> Tensor:
    """An augmentation."""
    return load(path) + noise()


class NoisyText(WordText):
    """It draws in evaluation mode too."""

    def forward(self, texts: Sequence[str]) -> Tensor:
        return super().forward(texts) + torch.rand(1)


class NoisyFusion(nn.Module):
    """It learns, and draws in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(DIM, DIM)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        mixed: Tensor = self.layer(image + torch.rand(1) * text)
        return mixed


def noisy(global_seed: int = 0) -> fc.ComposedEncoder:
    torch.manual_seed(0)
    live = fc.DualEncoder(nn.Linear(4, DIM), NoisyText(dropout=0.5), noisy_load)
    model = fc.ComposedEncoder(live, NoisyFusion())
    stir(global_seed)
    return model


def stir(seed: int) -> None:
    """The caller's streams are somewhere else in each process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class StopError(Exception):
    pass


class StopAt:
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
        if trainer.steps == self._steps:
            raise StopError


def fit(root: Path, config: fc.StageConfig, stir_by: int, stop: int = -1, **more: Any) -> fc.Run:
    data = Toy(root)
    callbacks = [StopAt(stop)]
    return fc.Trainer(
        noisy(stir_by), loss=fc.InfoNCE(0.1), config=config, callbacks=callbacks, **more
    ).fit(data, data)


STEPS = 3 * 3


@settings(
    max_examples=6,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink takes minutes
)
@given(
    stop=st.integers(1, STEPS - 1),
    train=st.sampled_from(["fusion", "image", ("both", "fusion"), ("text", "fusion")]),
    cache=st.booleans(),
    more=st.fixed_dictionaries(
        {
            "ema_decay": st.sampled_from([None, 0.8]),
            "micro_batch_size": st.sampled_from([None, 2]),
            "encoder_mode": st.sampled_from(["eval", "train"]),
            "patience": st.sampled_from([None, 1]),
            "seed": st.integers(0, 2**40),
        }
    ),
)
def test_a_run_that_draws_everywhere_resumes_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    stop: int,
    train: Any,
    cache: bool,
    more: dict[str, Any],
) -> None:
    root = tmp_path_factory.mktemp("run")
    config = replace(CONFIG, trainable=train, cache=cache, save_every_steps=1, **more)
    whole = fit(root, config, stir_by=1)
    try:
        resumed = fit(root, config, stir_by=2, stop=stop, workdir=root / "work")
    except StopError:
        resumed = fit(root, config, stir_by=3, workdir=root / "work")
    assert resumed.history == whole.history
    assert_equal_weights(resumed.model, whole.model)


@pytest.mark.parametrize("train", ["image", "fusion"])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, train: str) -> None:
    config = replace(CONFIG, trainable=train, cache=train == "fusion", epochs=2)
    runs = [
        fit(tmp_path, replace(config, num_workers=num_workers), stir_by=num_workers)
        for num_workers in (0, 2)
    ]
    assert runs[0].history == runs[1].history
    assert_equal_weights(runs[0].model, runs[1].model)


class Scores:
    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def on_evaluation(self, trainer: fc.Trainer, evaluation: fc.Evaluation) -> None:
        self.seen.add(evaluation.ranking.tasks[0].scores.numpy().tobytes())


def test_validation_draws_other_numbers_in_other_epochs_and_by_other_seeds(tmp_path: Path) -> None:
    scores = Scores()
    for seed in (0, 1):
        config = replace(CONFIG, trainable="image", cache=False, lr=1e-30, seed=seed)
        fc.Trainer(plain_model(), loss=fc.InfoNCE(), config=config, callbacks=[scores]).fit(
            Toy(tmp_path), Toy(tmp_path)
        )
    assert len(scores.seen) == 2 * 3


def plain_model() -> fc.ComposedEncoder:
    torch.manual_seed(0)
    return fc.ComposedEncoder(fc.DualEncoder(nn.Linear(4, DIM), WordText(), noisy_load), fc.Sum())


READS: dict[str, Callable[[fc.ComposedEncoder, Toy, int], list[Tensor]]] = {
    "query": lambda m, data, _: [m.encode_query([data.path("3"), data.path("4")], ["word 1"] * 2)],
    "gallery": lambda m, data, _: [m.encode_gallery([data.path(i) for i in data.image_ids])],
    "evaluate": lambda m, data, num_workers: [
        fc.evaluate(m, data, num_workers=num_workers).ranking.tasks[0].scores
    ],
    "build": lambda m, data, num_workers: [
        fc.CachedEncoder.build(m.encoder, data, num_workers=num_workers).image.features
    ],
    "skip": lambda m, data, num_workers: [
        fc.rank(m, data, num_workers=num_workers, on_error="skip").tasks[0].scores
    ],
    "batches": lambda m, data, num_workers: [
        batch.target
        for batch in batches(data, m.encoder, replace(CONFIG, num_workers=num_workers), epoch=1)
    ],
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", READS)
def test_what_load_draws_belongs_to_the_image_wherever_it_is_loaded(
    tmp_path: Path, name: str, num_workers: int
) -> None:
    model, data = plain_model(), Toy(tmp_path)
    read = READS[name]
    results = []
    for number in (0, 2):
        stir(number)
        results.append(torch.cat(read(model, data, num_workers if number else 0)))
        after = noise()
        stir(number)
        assert noise() == after
    assert torch.equal(*results)


def test_a_gallery_s_images_draw_what_the_cache_of_them_does(tmp_path: Path) -> None:
    model, data = plain_model(), Toy(tmp_path)
    cached = fc.ComposedEncoder(fc.CachedEncoder.build(model.encoder, data), fc.Sum())
    gallery = model.encode_gallery([data.path(image_id) for image_id in data.image_ids])
    torch.testing.assert_close(gallery, cached.encode_gallery(data.image_ids))


def test_streams_of_two_threads_do_not_mix(tmp_path: Path) -> None:
    """Trainings with dropout and noisy loads, and galleries, of models of their own."""
    data = Toy(tmp_path)

    def train(seed: int) -> Tensor:
        config = replace(CONFIG, trainable=("both", "fusion"), encoder_mode="train", seed=seed)
        run = fc.Trainer(models[seed], loss=fc.InfoNCE(0.1), config=config).fit(data, data)
        return torch.cat([weight.flatten() for weight in run.model.state_dict().values()])

    def gallery(seed: int) -> Tensor:
        paths = [data.path(image_id) for image_id in data.image_ids]
        return torch.stack([models[seed].encode_gallery(paths) for _ in range(20)])

    tasks: list[tuple[Callable[[int], Tensor], int]]
    tasks = [(train, 0), (train, 1), (gallery, 2), (gallery, 3)]
    models = [noisy() for _ in tasks]
    alone = [function(seed) for function, seed in tasks]
    models = [noisy() for _ in tasks]
    together: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda f=f, s=s: together.update({s: f(s)}), daemon=True)
        for f, s in tasks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all(torch.equal(alone[seed], together[seed]) for _, seed in tasks)
