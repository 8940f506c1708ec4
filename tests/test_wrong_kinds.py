"""Arguments of a wrong kind, on every public name: the error is fusecomp's own and names them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import random_evaluation, random_model
from raising import own_error, shown_id
from tasks import Toy, toy_task
from torch import Tensor, nn

import fusecomp as fc
from fusecomp import evaluation, images, losses, report, retrieval, training
from fusecomp._core.similarity import cosine, normalize
from fusecomp.encoders import OpenClipEncoder, SentenceTransformersText, TransformersEncoder

Call = Callable[[Any], Any]

EYE, IDS = torch.eye(3), torch.arange(3)
DATA = Toy([toy_task(queries=4, size=6)])
MODEL = random_model(DATA)
FOUND = random_evaluation(DATA)
TASK = FOUND.ranking["toy"]
NOWHERE = Path("nowhere")
CACHED = fc.CachedEncoder.from_arrays(list("abc"), EYE, list("xyz"), EYE)


def stage(**settings: Any) -> fc.StageConfig:
    return fc.StageConfig(**{"epochs": 1, "batch_size": 4, "lr": 0.1, **settings})


def setting(name: str) -> Call:
    return lambda value: stage(**{name: value})


def dual(**widths: Any) -> fc.DualEncoder:
    return fc.DualEncoder(**{"image": nn.Identity(), "text": len, "image_dim": 2, **widths})


def build(**options: Any) -> fc.CachedEncoder:
    return fc.CachedEncoder.build(MODEL.encoder, DATA, **options)


class OpenCLIP(nn.Module):
    """Has what an OpenClipEncoder asks for."""

    encode_image = encode_text = nn.Module.forward


OPEN_CLIP = OpenClipEncoder(OpenCLIP(), lambda texts: EYE)
STAGES: dict[str, Any] = {"loss": fc.InfoNCE(), "stage1": None, "stage2": stage()}


def in_stages(**options: Any) -> training.TwoStageTrainer:
    return training.TwoStageTrainer(CACHED, fc.Sum(), **STAGES, **options)


def ablated(**options: Any) -> training.Ablation:
    return training.ablation(CACHED, fc.Sum(), DATA, DATA, **STAGES, **options)


# By argument: how a value gets there. The least value is 1, or what stands beside it.
WHOLE: dict[str, Call] = {
    "dim of Combiner": lambda v: fc.Combiner(v),
    "projection_dim of Combiner": lambda v: fc.Combiner(2, v),
    "hidden_dim of Combiner": lambda v: fc.Combiner(2, hidden_dim=v),
    "size of Queue": lambda v: losses.Queue(v, 4),
    "dim of Queue": lambda v: losses.Queue(4, v),
    "k of search": lambda v: retrieval.search(EYE, EYE, v),
    "chunk of search": lambda v: retrieval.search(EYE, EYE, 1, chunk=v),
    "k of search_targets": lambda v: retrieval.search_targets(EYE, EYE, IDS, v),
    "chunk of search_targets": lambda v: retrieval.search_targets(EYE, EYE, IDS, 1, chunk=v),
    "k of recall_at_k": lambda v: retrieval.recall_at_k(torch.tensor([1, 2]), v),
    "k of hits_at_k": lambda v: retrieval.hits_at_k(torch.tensor([1, 2]), v),
    "k of rank": lambda v: fc.rank(MODEL, DATA, v),
    "batch_size of build": lambda v: build(batch_size=v),
    "dim of DualEncoder": lambda v: dual(text_dim=2, dim=v),
    "image_dim of DualEncoder": lambda v: dual(image_dim=v),
    "text_dim of DualEncoder": lambda v: dual(text_dim=v, dim=3),
    "resamples of bootstrap": lambda v: evaluation.bootstrap(FOUND, resamples=v),
    "resamples of interval_table": lambda v: report.interval_table(FOUND, resamples=v),
    "resamples of compare": lambda v: evaluation.compare(FOUND, FOUND, resamples=v),
    "epochs of StageConfig": setting("epochs"),
    "batch_size of StageConfig": setting("batch_size"),
    "keep_best of StageConfig": setting("keep_best"),
    "eval_every_epochs of StageConfig": setting("eval_every_epochs"),
}
# These may be 0.
FROM_ZERO: dict[str, Call] = {
    "changes of compare": lambda v: evaluation.compare(FOUND, FOUND, resamples=9, changes=v),
    "seed of bootstrap": lambda v: evaluation.bootstrap(FOUND, resamples=9, seed=v),
    "warmup_steps of StageConfig": setting("warmup_steps"),
    "seed of StageConfig": setting("seed"),
}
# These may be None.
OPTIONAL: dict[str, Call] = {
    "num_workers of build": lambda v: build(num_workers=v),
    "num_workers of rank": lambda v: fc.rank(MODEL, DATA, num_workers=v),
    "num_workers of evaluate": lambda v: fc.evaluate(MODEL, DATA, num_workers=v),
    "num_workers of cosines": lambda v: evaluation.cosines(MODEL, DATA, num_workers=v),
    "micro_batch_size of StageConfig": setting("micro_batch_size"),
    "patience of StageConfig": setting("patience"),
    "save_every_steps of StageConfig": setting("save_every_steps"),
    "num_workers of StageConfig": setting("num_workers"),
}
# These draw when all is well, which is not tried here.
DRAWN: dict[str, Call] = {
    "top of retrieval_sheet": lambda v: report.retrieval_sheet(TASK, DATA, NOWHERE, top=v),
    "queries of retrieval_sheet": lambda v: report.retrieval_sheet(TASK, DATA, NOWHERE, [v]),
    "each of PageOptions": lambda v: report.PageOptions(each=v),
    "top of PageOptions": lambda v: report.PageOptions(top=v),
    "seed of PageOptions": lambda v: report.PageOptions(seed=v),
}
NO_WHOLE_NUMBERS: list[Any] = [
    *("8", b"8", True, np.True_, 2.5, 2.0, np.float64(2), math.nan, math.inf, -1, 1j, [8], (8,)),
    *({8}, {8: 8}, np.array(8), np.array([8, 9]), torch.tensor(8), object(), int, iter([8])),
]


def argument_of(name: str) -> str:
    return name.partition(" of ")[0]


@pytest.mark.parametrize("name", [*WHOLE, *FROM_ZERO, *OPTIONAL, *DRAWN])
def test_what_is_no_whole_number_is_named(name: str) -> None:
    call = {**WHOLE, **FROM_ZERO, **OPTIONAL, **DRAWN}[name]
    for value in NO_WHOLE_NUMBERS:
        message = own_error(call, value)
        assert message.startswith(f"{argument_of(name)} must be a whole number of at least"), value
    if name in WHOLE:
        for value in (None, 0):
            if (name, value) in ALLOWED:
                continue
            assert argument_of(name) in own_error(call, value)


# None is a default.
ALLOWED = {
    (f"{name} of {owner}", None)
    for owner, names in {
        "Combiner": ("projection_dim", "hidden_dim"),
        "DualEncoder": ("dim", "image_dim"),
    }.items()
    for name in names
}


@pytest.mark.parametrize("name", [*WHOLE, *FROM_ZERO, *OPTIONAL])
def test_numbers_that_no_tensor_can_count_to_are_named(name: str) -> None:
    call = {**WHOLE, **FROM_ZERO, **OPTIONAL}[name]
    if name == "seed of bootstrap":  # NumPy takes seeds of any length
        assert call(2**100) == call(2**100) != call(1)
        return
    for value in (2**63, 10**30, 10**5000):
        assert f"{argument_of(name)} must be at most" in own_error(call, value)


@pytest.mark.parametrize("name", ["k of search", "k of search_targets", "k of rank"])
def test_a_k_whose_padding_would_fill_the_memory_is_named(name: str) -> None:
    for k in (2**20 + 1, 2**33, 2**40):
        assert own_error(WHOLE[name], k) == f"k must be at most 1048576, got {k}"
    assert retrieval.search(EYE, EYE, 10**5)[1][:, 3:].unique() == -1


@pytest.mark.parametrize("name", [*WHOLE, *FROM_ZERO, *OPTIONAL])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_whole_numbers_of_numpy_are_taken(name: str, kind: Any) -> None:
    {**WHOLE, **FROM_ZERO, **OPTIONAL}[name](kind(2))


NUMBERS: dict[str, Call] = {
    "dropout of Combiner": lambda v: fc.Combiner(2, dropout=v),
    "temperature of InfoNCE": lambda v: fc.InfoNCE(v),
    "temperature of MultiPositiveNCE": lambda v: losses.MultiPositiveNCE(v),
    "temperature of HardNegativeNCE": lambda v: losses.HardNegativeNCE(v),
    "temperature of SigmoidLoss": lambda v: losses.SigmoidLoss(v),
    "start of LearnableTemperature": lambda v: losses.LearnableTemperature(v, 0.0),
    "lowest of LearnableTemperature": lambda v: losses.LearnableTemperature(0.9, v),
    "label_smoothing of InfoNCE": lambda v: fc.InfoNCE(label_smoothing=v),
    "margin of InfoNCE": lambda v: fc.InfoNCE(margin=v),
    "margin of TripletMarginLoss": lambda v: losses.TripletMarginLoss(v),
    "alpha of HardNegativeNCE": lambda v: losses.HardNegativeNCE(alpha=v),
    "beta of HardNegativeNCE": lambda v: losses.HardNegativeNCE(beta=v),
    "bias of SigmoidLoss": lambda v: losses.SigmoidLoss(bias=v),
    "weight of CombinedLoss": lambda v: losses.CombinedLoss({"a": (v, fc.InfoNCE())}),
    "teacher_temperature of DistillationLoss": lambda v: losses.DistillationLoss(
        EYE, torch.stack((IDS, IDS), 1), EYE, IDS, teacher_temperature=v
    ),
    "lr of StageConfig": setting("lr"),
    "eps of StageConfig": setting("eps"),
    "weight_decay of StageConfig": setting("weight_decay"),
    "max_grad_norm of StageConfig": setting("max_grad_norm"),
    "ema_decay of StageConfig": setting("ema_decay"),
    "betas of StageConfig": lambda v: stage(betas=(0.9, v)),
    "lr_overrides of StageConfig": lambda v: stage(lr_overrides={"encoder.*": v}),
}
NO_NUMBERS: list[Any] = [
    *("0.5", b"5", True, np.True_, math.nan, math.inf, -math.inf, 10**400, 1j, [0.5], (0.5,)),
    *({0.5}, {0: 1}, np.array(0.5), np.array([1.0, 2.0]), torch.tensor(0.5), object(), float),
]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_named(name: str) -> None:
    for value in NO_NUMBERS:
        message = own_error(NUMBERS[name], value)
        assert argument_of(name) in message, value
        assert " must be " in message, value
    if name not in ("bias of SigmoidLoss", "weight of CombinedLoss"):
        assert argument_of(name) in own_error(NUMBERS[name], -1.0)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.float16(0.5)], ids=shown_id)
def test_numbers_of_numpy_make_the_same_as_python_s(name: str, value: Any) -> None:
    assert repr(NUMBERS[name](value)) == repr(NUMBERS[name](0.5))


FLAGS: dict[str, Call] = {
    "symmetric of InfoNCE": lambda v: fc.InfoNCE(0.1, v),
    **{
        f"{name} of StageConfig": setting(name)
        for name in (
            *("drop_last", "unique_targets", "gradient_checkpointing"),
            *("cache", "compile", "deterministic"),
        )
    },
}


@pytest.mark.parametrize("name", FLAGS)
def test_what_is_no_flag_is_named(name: str) -> None:
    wrong: list[Any] = [
        None,
        "False",
        "no",
        "",
        0,
        1,
        0.0,
        [],
        np.array([True]),
        torch.tensor(True),
    ]
    for value in wrong:
        message = own_error(FLAGS[name], value)
        assert message.startswith(f"{argument_of(name)} must be True or False, got"), value
    for flag in (True, False):
        assert repr(FLAGS[name](np.bool_(flag))) == repr(FLAGS[name](flag))


CHOICES: dict[str, Call] = {
    "mining of TripletMarginLoss": lambda v: losses.TripletMarginLoss(mining=v),
    "on_error of rank": lambda v: fc.rank(MODEL, DATA, on_error=v),
    "on_error of build": lambda v: build(on_error=v),
    "precision of build": lambda v: build(precision=v),
    **{
        f"{name} of StageConfig": setting(name)
        for name in ("optimizer", "precision", "encoder_mode", "lr_schedule", "on_nonfinite")
    },
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_no_choice_is_named_with_the_valid_ones(name: str) -> None:
    wrong: list[Any] = [None, "other", b"raise", 1, True, [], ["raise"], {}, np.array(["a"]), EYE]
    for value in wrong:
        message = own_error(CHOICES[name], value)
        assert message.startswith(f"unknown {argument_of(name)} "), value
        assert "; valid: '" in message, value


def test_exclude_names_what_there_is() -> None:
    for value in (None, 1, True, "targets", ["target", 1], {"target": True}, {"own"}, EYE, ["a"]):
        for make in (
            fc.InfoNCE,
            losses.TripletMarginLoss,
            losses.SigmoidLoss,
            losses.HardNegativeNCE,
        ):
            message = own_error(make, exclude=value)
            assert message.startswith("exclude must name some of ('target', 'reference'), got")
    for given in ("target", ("target",), ["target"], {"target"}, np.array(["target"])):
        assert fc.InfoNCE(exclude=given).exclude == ("target",)


# Features: tensors [rows, D] that can be computed with.

QUERY_IDS = torch.stack((IDS, IDS), 1)
FEATURES: dict[str, Call] = {
    "query of search": lambda v: retrieval.search(v, EYE, 1),
    "gallery of search": lambda v: retrieval.search(EYE, v, 1),
    "query of search_targets": lambda v: retrieval.search_targets(v, EYE, IDS, 1),
    "query of feature_cosines": lambda v: evaluation.feature_cosines(v, EYE, IDS),
    "features of Bank": lambda v: losses.Bank(v, IDS),
    "queries of DistillationLoss": lambda v: losses.DistillationLoss(v, QUERY_IDS, EYE, IDS),
    "targets of DistillationLoss": lambda v: losses.DistillationLoss(EYE, QUERY_IDS, v, IDS),
    "a of cosine": lambda v: cosine(v, EYE),
    "b of cosine": lambda v: cosine(EYE, v),
    "image of compose": lambda v: MODEL.compose(v, EYE),
    "text of compose": lambda v: MODEL.compose(EYE, v),
}
NO_FEATURES: list[Any] = [
    *(None, "features", 1.0, [[1.0]], np.eye(3), EYE.tolist(), {0: EYE}, iter(EYE), object()),
    *(EYE[0], EYE[None], torch.tensor(1.0), torch.ones(0, 3), torch.ones(3, 0)),
    *(EYE.long(), EYE.bool(), EYE.to(torch.complex64)),
    *(EYE.to(torch.float8_e4m3fn), EYE.to(torch.float8_e5m2)),
    *(EYE.to_sparse(), torch.nested.nested_tensor([EYE, EYE[:2]], layout=torch.jagged)),
]


@pytest.mark.parametrize("name", FEATURES)
def test_what_are_no_features_are_named(name: str) -> None:
    for value in NO_FEATURES:
        message = own_error(FEATURES[name], value)
        assert message.startswith(argument_of(name)), value
        assert " must be " in message or " must have " in message or " belong " in message, value


KEPT = [name for name in FEATURES if argument_of(name) in ("features", "queries", "targets")]


@pytest.mark.parametrize("name", KEPT + [n for n in FEATURES if "search" in n or "ranks" in n])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_row_that_is_not_finite_is_named(name: str, value: float) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        broken = EYE.to(dtype, copy=True)
        broken[1, 2] = value
        assert own_error(FEATURES[name], broken) == (
            f"{argument_of(name)} row 1 holds NaN or infinity"
        )
    assert f"{argument_of(name)} is on the device meta" in own_error(
        lambda: FEATURES[name](EYE.to("meta"))
    )


@pytest.mark.parametrize("function", [normalize, lambda v: cosine(v, v)])
def test_a_narrow_dtype_is_named_with_the_way_out(function: Callable[[Tensor], Tensor]) -> None:
    message = own_error(function, EYE.to(torch.float8_e4m3fn))
    assert "must have a floating dtype, got torch.float8_e4m3fn; .float() makes it" in message


@pytest.mark.parametrize("which", ["exclude", "candidates", "subsets", "targets"])
def test_what_are_no_indices_are_named(which: str) -> None:
    def call(value: Any) -> Any:
        if which == "candidates":
            return retrieval.search(EYE, EYE, 1, candidates=value)
        return retrieval.search_targets(EYE, EYE, k=1, **{"targets": IDS, which: value})

    wrong: list[Any] = ["a", 1, [0, 1, 2], IDS.numpy(), {0}, IDS.double(), IDS.bool(), IDS.int()]
    wrong += [IDS[:2], IDS[0], IDS + 1, IDS - 2, IDS.to("meta"), IDS.unsqueeze(1).to_sparse()]
    for value in wrong:
        assert own_error(call, value).startswith(which), value


@pytest.mark.parametrize("metric", ["recall_at_k", "median_rank", "hits_at_k"])
def test_what_are_no_ranks_are_named(metric: str) -> None:
    more = () if metric == "median_rank" else (1,)
    wrong: list[Any] = [None, [1, 2], np.array([1, 2]), "12", torch.tensor([1.0, math.nan])]
    wrong += [torch.tensor([True]), torch.tensor([1j]), torch.tensor(1), torch.tensor([[1]])]
    wrong += [torch.tensor([0, 1]), torch.tensor([2, -2]), torch.tensor([1]).to("meta")]
    for value in wrong:
        message = own_error(getattr(retrieval, metric), value, *more)
        assert message.startswith("ranks "), value


@pytest.mark.parametrize(
    ("ranked", "targets", "named"),
    [
        ([["a"], ["b"]], "ab", "targets"),
        ("ab", ["a", "b"], "ranked"),
        (["ab", "cd"], ["a", "b"], "ranked[0]"),
        ([{"a"}, {"b"}], ["a", "b"], "ranked[0]"),
        ([["a"], ["b"]], {"a", "b"}, "targets"),
        ([["a"], ["b"]], iter("ab"), "targets"),
        ([["a"], ["b"]], {"a": 1, "b": 2}, "targets"),
        ([[1], [2]], ["1", "2"], "ranked[0]"),
        ([["1"], ["2"]], [1, 2], "targets"),
        (None, ["a"], "ranked"),
        ([["a"]], None, "targets"),
        (torch.ones(2, 2), torch.ones(2).long(), "ranked"),
        (torch.ones(2, 2).long(), torch.ones(2), "targets"),
        (torch.ones(2, 2).bool(), torch.ones(2).bool(), "ranked"),
        (torch.ones(2, 2).long(), torch.ones(2).long().to("meta"), "ranked is cpu and targets"),
    ],
)
def test_what_is_no_ranking_is_named(ranked: Any, targets: Any, named: str) -> None:
    assert own_error(retrieval.target_rank, ranked, targets).startswith(named)


PATHS: dict[str, Call] = {
    "path of cosine_figure": lambda v: report.cosine_figure({}, v),
    "log of training_curves": lambda v: report.training_curves(v, NOWHERE),
    "path of training_curves": lambda v: report.training_curves(NOWHERE, v),
    "path of retrieval_page": lambda v: report.retrieval_page(FOUND, DATA, v),
    "path of retrieval_sheet": lambda v: report.retrieval_sheet(TASK, DATA, v),
    "path of contact_sheet": lambda v: report.contact_sheet([], DATA, v),
    "folder of write_report": lambda v: report.write_report({"a": FOUND}, DATA, v, title="a"),
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
        if message == "dataset " and value is NOWHERE:
            continue
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


def test_rows_and_names_of_cached_features_are_checked() -> None:
    for side, call in (("image", CACHED.encode_image), ("text", CACHED.encode_text)):
        wrong: list[Any] = ["ab", b"ab", {"a"}, {"a": 1}, iter("a"), None, 3, [0], [["a"]]]
        wrong += [[None], np.array([0, 1]), torch.tensor([-1]), torch.tensor([3]), torch.tensor(0)]
        wrong += [torch.tensor([0.0]), torch.tensor([True]), torch.tensor([[0]])]
        for value in wrong:
            assert side in own_error(call, value), value
        names = "abc" if side == "image" else "xyz"
        given: list[Any] = [
            tuple(names),
            np.array(list(names)),
            np.array(list(names), dtype=object),
        ]
        for value in given:
            assert torch.equal(call(value), EYE)


def test_features_have_one_of_four_dtypes() -> None:
    for value in (
        "float16",
        np.float16,
        torch.int8,
        torch.float8_e4m3fn,
        torch.complex64,
        16,
        True,
    ):
        assert own_error(build, dtype=value).startswith("dtype must be floating")


def test_callbacks_are_objects_with_methods() -> None:
    class Odd:
        on_step = 5

    def fit(callbacks: Any) -> Any:
        model = fc.ComposedEncoder(MODEL.encoder, fc.Combiner(4))
        return fc.Trainer(model, loss=fc.InfoNCE(), config=stage(), callbacks=callbacks).fit(DATA)

    for value in (None, 3, Odd(), "on_step", {"on_step": len}, {Odd}, object()):
        assert "callbacks must be a list" in own_error(fit, value), value
    assert "callback Odd: on_step must be a method, got 5" in own_error(fit, [Odd()])
