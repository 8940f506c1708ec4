"""Paths, parts and classes in the place of others: the error is fusecomp's own and names them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raising import own_error
from tasks import Toy
from torch import nn
from wrong_kinds import (
    CACHED,
    DATA,
    EYE,
    FOUND,
    MODEL,
    NOWHERE,
    OPEN_CLIP,
    TASK,
    Call,
    OpenCLIP,
    ablated,
    argument_of,
    in_stages,
    stage,
)

import fusecomp as fc
from fusecomp import evaluation, images, losses, report
from fusecomp.encoders import OpenClipEncoder, SentenceTransformersText, TransformersEncoder

PATHS: dict[str, Call] = {
    "path of cosine_figure": lambda v: report.cosine_figure({}, v),
    "log of training_curves": lambda v: report.training_curves(v, NOWHERE),
    "path of training_curves": lambda v: report.training_curves(NOWHERE, v),
    "path of retrieval_page": lambda v: report.retrieval_page(FOUND, DATA, v),
    "path of retrieval_sheet": lambda v: report.retrieval_sheet(TASK, DATA, v),
    "path of contact_sheet": lambda v: report.contact_sheet([], DATA, v),
    "folder of write_report": lambda v: report.write_report({"a": FOUND}, DATA, v, title="a"),
    "folder of write_model_card": lambda v: report.write_model_card(v, FOUND),
    "path of Evaluation.save": lambda v: FOUND.save(v),
    "path of Evaluation.load": lambda v: fc.Evaluation.load(v),
    "folder of ComposedEncoder.save": lambda v: MODEL.save(v),
    "folder of ComposedEncoder.load": lambda v: fc.ComposedEncoder.load(v, CACHED, fc.Sum()),
    "path of CachedEncoder.save": lambda v: CACHED.save(v),
    "path of CachedEncoder.load": lambda v: fc.CachedEncoder.load(v),
    "path of OpenClipEncoder.from_clip4cir": lambda v: OpenClipEncoder.from_clip4cir(v),
    "path of OpenClipEncoder.save_clip4cir": lambda v: OPEN_CLIP.save_clip4cir(v),
    "workdir of TwoStageTrainer": lambda v: in_stages(workdir=0 if v is None else v),
    "workdir of ablation": lambda v: ablated(workdir=0 if v is None else v),
}


@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_path_is_named(name: str) -> None:
    for value in (None, 3, True, b"path", ["path"], {"path"}, object(), EYE):
        message = own_error(PATHS[name], value)
        assert message.startswith(f"{argument_of(name)} must be a path, got "), value
    for value in ("a\0b", "a\ud800b", Path("a\0b"), Path("a\ud800b")):
        message = own_error(PATHS[name], value)
        assert message.startswith(f"{argument_of(name)} must be a path, which "), value
        assert message.endswith(f"got {value!r}"), value


# Objects in the place of others.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: evaluation.bootstrap(v), "evaluation must be an Evaluation"),
        (lambda v: report.interval_table(v), "evaluation must be an Evaluation"),
        (lambda v: report.write_model_card(NOWHERE, v), "evaluation must be an Evaluation"),
        (lambda v: evaluation.compare(v, FOUND), "a must be an Evaluation"),
        (lambda v: evaluation.compare(FOUND, v), "b must be an Evaluation"),
        (lambda v: report.retrieval_page(v, DATA, NOWHERE), "evaluation "),
        (lambda v: report.ablation_table(v), "rows must map names to Evaluation"),
        (lambda v: report.ablation_table({"a": v}), "rows must map names to Evaluation, but 'a'"),
        (lambda v: report.comparison_table(v), "rows must map names to Evaluation"),
        (lambda v: report.cosine_figure(v, NOWHERE), "rows must map names to Cosines"),
        (lambda v: report.write_report(v, DATA, NOWHERE, title=""), "rows must map names to"),
        (lambda v: report.retrieval_sheet(v, DATA, NOWHERE), "ranking must be one task of a"),
        (lambda v: report.retrieval_sheet(TASK, v, NOWHERE), "dataset "),
        (lambda v: report.retrieval_page(FOUND, v, NOWHERE), "dataset "),
        (lambda v: report.contact_sheet(DATA.triplets(), v, NOWHERE), "dataset "),
        (lambda v: report.contact_sheet([v], DATA, NOWHERE), "triplets must be a list of Triplet"),
        (lambda v: evaluation.cosines(v, DATA), "model "),
        (lambda v: fc.rank(v, DATA), "model "),
        (lambda v: fc.evaluate(MODEL, v), "dataset "),
        (lambda v: fc.CachedEncoder.build(v, DATA), "encoder "),
        (lambda v: fc.CachedEncoder.build(MODEL.encoder, v), "dataset "),
    ],
)
def test_an_object_in_the_place_of_another_is_named(call: Call, message: str) -> None:
    values: list[Any] = [None, "path", NOWHERE, 3, [1], [FOUND], iter("a"), object()]
    for value in [*values, fc.Evaluation, Toy, fc.ComposedEncoder]:
        assert own_error(call, value).startswith(message), value


CLASSES: dict[str, Call] = {
    "image of DualEncoder": lambda v: fc.DualEncoder(v, lambda texts: EYE),
    "text of DualEncoder": lambda v: fc.DualEncoder(nn.Identity(), v),
    "load_image of DualEncoder": lambda v: fc.DualEncoder(nn.Identity(), lambda texts: EYE, v),
    "model of OpenClipEncoder": lambda v: OpenClipEncoder(v, lambda texts: EYE),
    "tokenizer of OpenClipEncoder": lambda v: OpenClipEncoder(OpenCLIP(), v),
    "preprocess of OpenClipEncoder": lambda v: OpenClipEncoder(OpenCLIP(), lambda texts: EYE, v),
    "model of TransformersEncoder": lambda v: TransformersEncoder(v, len),
    "tokenizer of TransformersEncoder": lambda v: TransformersEncoder(OPEN_CLIP, v),
    "image_processor of TransformersEncoder": lambda v: TransformersEncoder(OPEN_CLIP, len, v),
    "model of SentenceTransformersText": lambda v: SentenceTransformersText(v),
    "pad of clip_transform": lambda v: images.clip_transform(8, v),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_in_the_place_of_its_instance_is_named(name: str) -> None:
    for value in (nn.Linear, images.TargetPad, OpenCLIP, fc.DualEncoder, Path):
        message = f"{argument_of(name)} is the class {value.__name__}: pass an instance of it"
        assert own_error(CLASSES[name], value) == message


def test_names_of_a_comparison_and_gates_are_checked() -> None:
    for names in ("ab", ("a",), ("a", "b", "c"), ("a", 1), {"a", "b"}, None):
        assert "names must be " in own_error(evaluation.compare, FOUND, FOUND, names=names)
    four = [0.5] * 3
    for gates in (
        "0.5",
        [*four, "0.5"],
        [*four, math.nan],
        [*four, None],
        {0.5},
        0.5,
        [*four, EYE],
    ):
        assert "gate" in own_error(report.retrieval_sheet, TASK, DATA, NOWHERE, gates=gates)
        assert "gate" in own_error(
            report.retrieval_page, FOUND, DATA, NOWHERE, gates={"toy": gates}
        )


def test_a_weighted_sum_is_of_pairs() -> None:
    loss = fc.InfoNCE()
    wrong: list[Any] = [{"a": loss}, {"a": (1.0,)}, {"a": (1.0, loss, 2)}, {"a": "ab"}]
    wrong += [{"a": (1.0, None)}, {"a": (1.0, fc.InfoNCE)}, {"a": (loss, 1.0)}, {"a": {1.0, loss}}]
    for value in wrong:
        assert "'a'" in own_error(losses.CombinedLoss, value)
    for value in ({1: (1.0, loss)}, {None: (1.0, loss)}, {("a",): (1.0, loss)}):
        assert "cannot be named" in own_error(losses.CombinedLoss, value)
    for result in (None, 1.0, np.float64(1), "1"):
        own = losses.CombinedLoss({"a": (1.0, lambda query, target, result=result: result)})
        assert "the loss 'a' must return a scalar, got" in own_error(own, EYE, EYE)


def test_callbacks_are_objects_with_methods() -> None:
    class Odd:
        on_step = 5

    def fit(callbacks: Any) -> Any:
        model = fc.ComposedEncoder(MODEL.encoder, fc.Combiner(4))
        return fc.Trainer(model, loss=fc.InfoNCE(), config=stage(), callbacks=callbacks).fit(DATA)

    for value in (None, 3, Odd(), "on_step", {"on_step": len}, {Odd}, object()):
        assert "callbacks must be a list" in own_error(fit, value), value
    assert "callback Odd: on_step must be a method, got 5" in own_error(fit, [Odd()])
