"""A model that is queried and evaluated from many threads while it learns."""

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import CONFIG, DIM, Toy, assert_equal_weights, encoder, load, weights

import fusecomp as fc

TEXTS = ["word 0", "word 3", "word 4"]


class Plain:
    """An encoder that is no module; it looks after its own mode."""

    def __init__(self) -> None:
        self._behind = encoder(dropout=0.5).eval()
        self.load_image = load

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        return self._behind.encode_image(images)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self._behind.encode_text(texts)


def composed(live: Any) -> fc.ComposedEncoder:
    torch.manual_seed(0)
    return fc.ComposedEncoder(live, fc.Combiner(DIM, dropout=0.5))


def as_bytes(*tensors: Tensor) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


class Beside:
    """Threads that ask beside a training, and what the weights after each step answer.

    Args:
        ask: a model -> answers by name.
        threads: how many ask.
        times: how often each asks.
    """

    def __init__(
        self,
        model: fc.ComposedEncoder,
        ask: Mapping[str, Callable[[fc.ComposedEncoder], bytes]],
        threads: int,
        times: int,
    ) -> None:
        self._model, self._ask, self._times = model, ask, times
        self._copy = copy.deepcopy(model)
        self._steps: list[dict[str, Tensor]] = []
        self.given: dict[str, set[bytes]] = {name: set() for name in ask}
        self.answers = 0
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)
        ]

    def _run(self, number: int) -> None:
        names = sorted(self._ask)
        try:
            for turn in range(self._times):
                name = names[(number + turn) % len(names)]
                self.given[name].add(self._ask[name](self._model))
                self.answers += 1
        except BaseException as error:
            self.failures.append(error)

    def on_start(self, trainer: fc.Trainer) -> None:
        self._steps.append(weights(self._model))
        for thread in self._threads:
            thread.start()

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        self._steps.append(weights(self._model))

    def on_end(self, trainer: fc.Trainer, run: fc.Run) -> None:
        self._steps.append(weights(self._model))
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def assert_right(self) -> None:
        assert self.failures == []
        assert self.answers == len(self._threads) * self._times
        right: dict[str, set[bytes]] = {name: set() for name in self._ask}
        for step in self._steps:
            self._copy.load_state_dict(step)
            for name, ask in self._ask.items():
                right[name].add(ask(self._copy))
        for name, given in self.given.items():
            assert given <= right[name], name
        # They met the training, and not only the weights before and after it.
        assert max(map(len, self.given.values())) > 3


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [str(Toy(tmp_path).path(image_id)) for image_id in ("1", "5", "6")]


def questions(paths: list[str]) -> dict[str, Callable[[fc.ComposedEncoder], bytes]]:
    images = torch.stack([load(Path(path)) for path in paths])
    return {
        "images": lambda model: as_bytes(model.encode_query(images, TEXTS)),
        "files": lambda model: as_bytes(model.encode_query(paths, TEXTS)),
        "gallery": lambda model: as_bytes(model.encode_gallery(paths[:2])),
        "one": lambda model: as_bytes(model.encode_query(images[:1], TEXTS[:1])),
    }


SETTINGS = {
    "fusion": {"trainable": "fusion"},
    "encoder in training mode": {"trainable": ("text", "fusion"), "encoder_mode": "train"},
    "averaged": {
        "trainable": ("both", "fusion"),
        "ema_decay": 0.9,
        "cache": False,
        "micro_batch_size": 3,
    },
}


@pytest.mark.parametrize(
    ("make", "settings", "times"),
    [
        (partial(encoder, dropout=0.5), SETTINGS["fusion"], 25),
        (partial(encoder, dropout=0.5), SETTINGS["encoder in training mode"], 80),
        (partial(encoder, dropout=0.5), SETTINGS["averaged"], 25),
        (Plain, SETTINGS["fusion"], 25),
    ],
    ids=[*SETTINGS, "plain encoder"],
)
def test_queries_beside_a_training_are_those_of_some_step_and_do_not_disturb_it(
    tmp_path: Path, paths: list[str], make: Callable[[], Any], settings: dict[str, Any], times: int
) -> None:
    config = replace(CONFIG, epochs=10, lr=0.01, **settings)
    models = [composed(make()) for _ in range(2)]
    beside = Beside(models[0], questions(paths), threads=8, times=times)
    before = modes(models[0])
    data = Toy(tmp_path)
    runs = [
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config, callbacks=callbacks).fit(data, data)
        for model, callbacks in zip(models, ([beside], []), strict=True)
    ]
    beside.assert_right()
    assert_equal_weights(*models)
    assert runs[0].history == runs[1].history
    assert modes(models[0]) == before


def test_an_evaluation_beside_a_training_sees_one_set_of_weights(tmp_path: Path) -> None:
    data = Toy(tmp_path)

    def evaluated(model: fc.ComposedEncoder) -> bytes:
        found = fc.evaluate(model, data).ranking.tasks[0]
        return as_bytes(found.scores, found.indices)

    def compared(model: fc.ComposedEncoder) -> bytes:
        found = fc.evaluation.cosines(model, data)
        return repr((found.target.total, found.others.total)).encode()

    def cached(model: fc.ComposedEncoder) -> bytes:
        built = fc.CachedEncoder.build(model.encoder, data)
        return as_bytes(built.image.features, built.text.features)

    config = replace(
        CONFIG, epochs=12, trainable=("both", "fusion"), encoder_mode="train", ema_decay=0.5
    )
    models = [composed(encoder(dropout=0.5)) for _ in range(2)]
    ask = {"evaluate": evaluated, "cosines": compared, "build": cached}
    beside = Beside(models[0], ask, threads=3, times=9)
    for model, callbacks in zip(models, ([beside], []), strict=True):
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config, callbacks=callbacks).fit(data, data)
    beside.assert_right()
    assert_equal_weights(*models)


class Asking:
    """Asks in another thread, and waits for it, in the hooks where that must be possible."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self.asked = 0

    def _in_a_thread(self) -> None:
        thread = threading.Thread(target=self._ask, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        self.asked += 1

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        self._in_a_thread()

    def on_epoch(self, trainer: fc.Trainer, record: dict[str, float]) -> None:
        self._in_a_thread()


def test_hooks_may_wait_for_a_thread_that_asks(tmp_path: Path, paths: list[str]) -> None:
    model = composed(encoder())
    asking = Asking(lambda: model.encode_query(paths, TEXTS))
    config = replace(CONFIG, ema_decay=0.9)
    fc.Trainer(model, loss=fc.InfoNCE(), config=config, callbacks=[asking]).fit(
        Toy(tmp_path), Toy(tmp_path)
    )
    assert asking.asked == 3 * 3 + 3


def test_an_error_in_a_reading_thread_leaves_the_training_alone(
    tmp_path: Path, paths: list[str]
) -> None:
    models = [composed(encoder()) for _ in range(2)]
    before = weights(models[0])

    def ask() -> None:
        with pytest.raises(FileNotFoundError, match="images are missing"):
            models[0].encode_query(["none.png"], TEXTS[:1])
        with pytest.raises(ValueError, match="invalid literal"):
            models[0].encode_query(paths[:1], ["a word"])

    for model, callbacks in zip(models, ([Asking(ask)], []), strict=True):
        fc.Trainer(model, loss=fc.InfoNCE(), config=CONFIG, callbacks=callbacks).fit(Toy(tmp_path))
    assert_equal_weights(*models)
    after = models[0].get_parameter("fusion.output_layer.bias")
    assert not torch.equal(before["fusion.output_layer.bias"], after)
    assert all(modes(models[0]))
