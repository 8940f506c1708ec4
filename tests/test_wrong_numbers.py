"""Numbers, flags and choices of a wrong kind, at every public argument: the error names it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from raising import own_error
from wrong_kinds import (
    DATA,
    EYE,
    FOUND,
    IDS,
    MODEL,
    NOWHERE,
    TASK,
    Call,
    argument_of,
    build,
    dual,
    setting,
    stage,
)

import fusecomp as fc
from fusecomp import evaluation, losses, report, retrieval

# The checks themselves are tried with more values in test_argument_checks.
# By argument: how a value gets there. The least value is 1.
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
COUNTS = {**WHOLE, **FROM_ZERO, **OPTIONAL}
# None is a default of these.
DEFAULTS = (
    *("projection_dim of Combiner", "hidden_dim of Combiner"),
    *("dim of DualEncoder", "image_dim of DualEncoder"),
)


@pytest.mark.parametrize("name", [*COUNTS, *DRAWN])
def test_what_is_no_whole_number_is_named(name: str) -> None:
    call, argument = {**COUNTS, **DRAWN}[name], argument_of(name)
    for value in ("8", True, 2.5, 2.0, math.nan, -1, [8], np.array(8), torch.tensor(8), int):
        message = own_error(call, value)
        assert message.startswith(f"{argument} must be a whole number of at least"), value
    if name in WHOLE:
        assert argument in own_error(call, 0)
        assert name in DEFAULTS or argument in own_error(call, None)


@pytest.mark.parametrize("name", COUNTS)
def test_numbers_that_no_tensor_can_count_to_are_named(name: str) -> None:
    call = COUNTS[name]
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


@pytest.mark.parametrize("name", COUNTS)
def test_whole_numbers_of_numpy_are_taken(name: str) -> None:
    COUNTS[name](np.int64(2))


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


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_named(name: str) -> None:
    for value in ("0.5", True, math.nan, math.inf, [0.5], np.array(0.5), torch.tensor(0.5), float):
        message = own_error(NUMBERS[name], value)
        assert argument_of(name) in message, value
        assert " must be " in message, value
    if name not in ("bias of SigmoidLoss", "weight of CombinedLoss"):
        assert argument_of(name) in own_error(NUMBERS[name], -1.0)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_numpy_make_the_same_as_python_s(name: str) -> None:
    assert repr(NUMBERS[name](np.float32(0.5))) == repr(NUMBERS[name](0.5))


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
    wrong: list[Any] = [None, "False", "", 0, 1, [], np.array([True]), torch.tensor(True)]
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
    for value in (None, "other", b"raise", 1, ["raise"], np.array(["a"]), EYE):
        message = own_error(CHOICES[name], value)
        assert message.startswith(f"unknown {argument_of(name)} "), value
        assert "; valid: '" in message, value


EXCLUDING = (
    fc.InfoNCE,
    losses.TripletMarginLoss,
    losses.SigmoidLoss,
    losses.HardNegativeNCE,
)


def test_exclude_names_what_there_is() -> None:
    for value in (None, 1, True, "targets", ["target", 1], {"target": True}, {"own"}, EYE, ["a"]):
        for make in EXCLUDING:
            message = own_error(make, exclude=value)
            assert message.startswith("exclude must name some of ('target', 'reference'), got")
    for given in ("target", ("target",), ["target"], {"target"}, np.array(["target"])):
        assert fc.InfoNCE(exclude=given).exclude == ("target",)


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
