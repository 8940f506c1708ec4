"""What a fusion names it gets, exactly: by parts, on two processes, cached, after a break."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import CONFIG, furthest
from processes import Processes
from tokened import FUSIONS, TEXT_WIDTH, Everything, Prompted, composed, encoder, trained
from torch import Tensor, nn
from toy import DIM, WORDS, Toy, first_epoch

import fusecomp as fc
from fusecomp._core.tokens import cat_padded
from fusecomp.fusions import CIRPLANT
from fusecomp.training import ablation, batches
from fusecomp.training._gradient_cache import GradientCache
from fusecomp.types import Tokens

SGD = replace(CONFIG, optimizer="sgd", lr=0.1)
NAMES = pytest.mark.parametrize("fusion", FUSIONS)


@NAMES
def test_parts_of_a_batch_give_the_weights_of_the_whole(tmp_path: Path, fusion: str) -> None:
    whole = trained(tmp_path, fusion, SGD)
    for size in (1, 3, 7):
        parts = trained(tmp_path, fusion, replace(SGD, micro_batch_size=size))
        assert furthest(whole, parts) < 1e-10
    start = {name: weight.detach() for name, weight in composed(fusion).named_parameters()}
    moved = {name for name in start if not torch.equal(start[name], whole[name])}
    assert moved >= {"encoder.text.letter.weight"}
    assert ("encoder.image.patch.weight" in moved) and len(moved) >= len(start) - 2


@NAMES
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_two_processes_give_the_weights_of_one(
    tmp_path: Path, two: Processes, fusion: str, micro_batch: int | None
) -> None:
    one = trained(tmp_path, fusion, SGD)
    config = replace(SGD, micro_batch_size=micro_batch)
    for weights in two.run(trained, tmp_path, fusion, config):
        assert furthest(one, weights) < 1e-10


@NAMES
@pytest.mark.parametrize("train", ["fusion", "text", "image", ("text", "fusion")])
def test_cached_tokens_train_as_live_ones(tmp_path: Path, fusion: str, train: Any) -> None:
    config = replace(SGD, trainable=train)
    live = trained(tmp_path, fusion, replace(config, cache=False))
    assert furthest(live, trained(tmp_path, fusion, config)) < 1e-12


@NAMES
def test_activations_that_are_computed_again_change_nothing(tmp_path: Path, fusion: str) -> None:
    config = replace(SGD, encoder_mode="train")
    kept = trained(tmp_path, fusion, config, dropout=0.5)
    config = replace(config, gradient_checkpointing=True)
    assert furthest(kept, trained(tmp_path, fusion, config, dropout=0.5)) < 1e-12


class OneGraph(GradientCache):
    """The reference: the same parts, but their graphs are kept."""

    def __init__(self, encode: Any, parts: int, learns: bool) -> None:
        pieces = [encode(part) for part in range(parts)]
        self.features = {n: cat_padded([piece[n] for piece in pieces]) for n in pieces[0]}

    def backward(self) -> None:
        """Nothing is left to do."""


def test_parts_draw_the_same_random_numbers_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SGD, micro_batch_size=3, encoder_mode="train")
    cached = trained(tmp_path, "Everything", config, dropout=0.5)
    monkeypatch.setattr("fusecomp.training._step.GradientCache", OneGraph)
    assert furthest(trained(tmp_path, "Everything", config, dropout=0.5), cached) < 1e-12


def test_features_and_tokens_come_from_one_dropout() -> None:
    live = encoder(dropout=0.5).train()
    features, tokens = live.encode_text_tokens(["word 4", "word 1"])
    letters = tokens.values[1, :2].mean(0)
    text: Any = live.text
    torch.testing.assert_close(features[1], text.pool(letters))


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    results = []
    data = Prompted(tmp_path, rows=17)
    for folder, epochs in (("straight", [2]), ("resumed", [1, 2])):
        for number in epochs:
            model, config = composed(), replace(SGD, epochs=number, micro_batch_size=4)
            loss, workdir = fc.InfoNCE(0.1), tmp_path / folder
            fc.Trainer(model, loss=loss, config=config, workdir=workdir).fit(data, data)
        results.append(model.state_dict())
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_other_prompts_are_another_run(tmp_path: Path) -> None:
    class Others(Prompted):
        @property
        def reference_texts(self) -> dict[str, str]:
            return {**super().reference_texts, "3": "word 0"}

    run = tmp_path / "run"
    for data in (Prompted(tmp_path), Prompted(tmp_path)):
        fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=SGD, workdir=run).fit(data)
    with pytest.raises(ValueError, match="reference_texts"):
        fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=SGD, workdir=run).fit(Others(tmp_path))


def test_a_batch_has_the_prompt_of_each_reference(tmp_path: Path) -> None:
    data = Prompted(tmp_path, rows=12)
    cached = fc.CachedEncoder.build(encoder(), data, tokens=["image", "text"])
    config = replace(SGD, batch_size=12)
    (live,) = batches(data, encoder(), config, epoch=0)
    (looked_up,) = batches(data, cached, config, epoch=0)
    prompts = [data.reference_texts[data.image_ids[n]] for n in live.reference_ids.tolist()]
    assert live.reference_texts == prompts
    assert torch.equal(looked_up.reference_texts, cached.lookup["text"](prompts))
    assert live.rows(3, 5).reference_texts == prompts[3:5]
    (plain,) = batches(Toy(tmp_path, rows=12), encoder(), config, epoch=0)
    assert plain.reference_texts is None
    assert plain.rows(3, 5).reference_texts is None


def test_a_reference_without_a_prompt_is_named(tmp_path: Path) -> None:
    class Some(Prompted):
        @property
        def reference_texts(self) -> dict[str, str]:
            return {"1": "word 1"}

    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=SGD)
    with pytest.raises(ValueError, match="reference_texts of the dataset lack the reference '0'"):
        next(first_epoch(trainer, Some(tmp_path)))
    with pytest.raises(ValueError, match="reference_texts of the dataset lack the reference '0'"):
        fc.evaluate(composed(), Some(tmp_path))


def test_a_dataset_without_prompts_is_refused_where_they_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the fusion needs reference_text, but this Toy has no"):
        fc.evaluate(composed(), Toy(tmp_path))
    with pytest.raises(ValueError, match="the fusion needs reference_text: pass reference_texts"):
        composed().encode_query(torch.randn(1, 4), ["word 1"])
    trainer = fc.Trainer(composed(), loss=fc.InfoNCE(0.1), config=SGD)
    with pytest.raises(ValueError, match="the fusion needs reference_text"):
        trainer.step(next(first_epoch(trainer, Toy(tmp_path))))


def test_prompts_that_no_fusion_names_are_not_asked_for(tmp_path: Path) -> None:
    class Some(Prompted):
        @property
        def reference_texts(self) -> dict[str, str]:
            return {"1": "word 1"}

    data = Some(tmp_path)
    ids, texts = list(data.image_ids), [f"word {n}" for n in range(WORDS)]
    cached = fc.CachedEncoder.from_arrays(
        ids, torch.randn(len(ids), DIM), texts, torch.randn(len(texts), DIM)
    )
    config = replace(SGD, trainable="fusion")
    for looked_up in (cached, encoder()):
        model = fc.ComposedEncoder(looked_up, fc.Combiner(DIM)).double()
        fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(data, data)


def test_the_ablation_scores_a_tuned_fusion_with_its_tokens(tmp_path: Path) -> None:
    data = Prompted(tmp_path, rows=17)
    live = encoder()
    result = ablation(
        live,
        CIRPLANT(DIM, 1, 2, text_dim=TEXT_WIDTH).double(),
        data,
        data,
        loss=fc.InfoNCE(0.1),
        stage1=replace(SGD, trainable="text"),
        stage2=SGD,
    )
    (found,) = result.evaluations["tuned, CIRPLANT"].ranking.tasks
    (expected,) = fc.evaluate(result.model, data).ranking.tasks
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.scores, expected.scores)


def test_an_encoder_without_tokens_is_refused_where_they_are_needed() -> None:
    plain = fc.DualEncoder(nn.Linear(4, DIM), encoder().text)
    with pytest.raises(ValueError, match=r"Everything needs image_tokens, which this DualEncoder"):
        fc.ComposedEncoder(plain, Everything())


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_fusion_gets_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, real = trained(tmp_path, "Everything", SGD), torch.compile
    monkeypatch.setattr("torch.compile", lambda part: real(part, backend="aot_eager"))
    torch._dynamo.reset()
    compiled = trained(tmp_path, "Everything", replace(SGD, compile=True))
    assert furthest(plain, compiled) < 1e-9


def test_a_loop_over_a_prepared_encoder_sees_cached_tokens(tmp_path: Path) -> None:
    model = composed()
    trainer = fc.Trainer(model, loss=fc.InfoNCE(0.1), config=replace(SGD, trainable="fusion"))
    prepared: Any = trainer.prepare(Prompted(tmp_path))
    assert prepared.token_sides == ["image", "text"]
    features, tokens = prepared.encode_text_tokens(prepared.lookup["text"](["word 2", "word 0"]))
    assert isinstance(tokens, Tokens)
    expected, live = encoder().encode_text_tokens(["word 2", "word 0"])
    assert torch.equal(features, expected)
    assert torch.equal(tokens.values[tokens.mask], live.values[live.mask])
    assert torch.equal(tokens.mask, live.mask)
    assert not tokens.values[~tokens.mask].any()


def by_hand(model: fc.ComposedEncoder, data: Any) -> Tensor:
    """Queries of triplets with one text each, one at a time."""
    queries = [
        model.encode_query(
            torch.stack([model.encoder.load_image(data.path(row.reference_id))]),  # type: ignore[attr-defined]
            list(row.texts),
            [data.reference_texts[row.reference_id]],
        )
        for row in data.triplets()
        if len(row.texts) == 1
    ]
    return torch.cat(queries)


@NAMES
def test_evaluation_fuses_what_a_query_alone_would(tmp_path: Path, fusion: str) -> None:
    model, data = composed(fusion), Prompted(tmp_path, rows=12)
    features = fc.evaluation.TaskFeatures(model, data)
    single = [number for number, row in enumerate(data.triplets()) if len(row.texts) == 1]
    queries = features.queries(features.tasks[0])
    torch.testing.assert_close(queries[single], by_hand(model, data), rtol=0, atol=1e-12)
    cached = fc.CachedEncoder.build(model.encoder, data, tokens=["image", "text"])
    other = fc.evaluation.TaskFeatures(fc.ComposedEncoder(cached, model.fusion), data)
    torch.testing.assert_close(other.queries(other.tasks[0]), queries, rtol=0, atol=0)


def test_a_step_has_the_gradient_of_all_that_was_fused(tmp_path: Path) -> None:
    model, other = composed(), composed()
    trainer = fc.Trainer(model, loss=fc.InfoNCE(0.1), config=SGD)
    batch = next(first_epoch(trainer, Prompted(tmp_path)))
    trainer.step(batch)
    live: Any = other.encoder
    image, image_tokens = live.encode_image_tokens(batch.reference)
    text, text_tokens = live.encode_text_tokens(batch.texts)
    query = other.compose(
        image,
        text,
        batch.text_counts,
        image_tokens=image_tokens,
        text_tokens=text_tokens,
        reference_text=live.encode_text(batch.reference_texts),
    )
    fc.InfoNCE(0.1)(query, live.encode_image(batch.target)).backward()
    for one, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert one.grad is not None and expected.grad is not None
        torch.testing.assert_close(one.grad, expected.grad, rtol=1e-9, atol=1e-12)
