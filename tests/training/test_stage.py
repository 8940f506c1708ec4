from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error

from fusecomp import StageConfig
from fusecomp.training import presets

VALID: dict[str, Any] = {"epochs": 1, "batch_size": 2, "lr": 0.1}

configs = st.builds(
    StageConfig,
    epochs=st.integers(1, 999),
    batch_size=st.integers(2, 9999),
    lr=st.floats(0, 1),
    trainable=st.one_of(st.just("text"), st.just(("fusion", "encoder.text.*"))),
    optimizer=st.sampled_from(["adam", "adamw", "sgd"]),
    weight_decay=st.none() | st.floats(0, 1),
    metric=st.none() | st.just("mean"),
    save_every_steps=st.none() | st.integers(1, 9),
    cache=st.booleans(),
    seed=st.integers(0, 2**40),
)


@given(configs)
def test_json_round_trip(config: StageConfig) -> None:
    assert StageConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size", 1),
        ("lr", -1e-3),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", "fast"),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("eps", -1.0),
        ("weight_decay", -0.1),
        ("optimizer", "adamx"),
        ("precision", "fp8"),
        ("encoder_mode", "test"),
        ("trainable", ""),
        ("trainable", ()),
        ("trainable", ("text", 3)),
        ("metric", 3),
        ("eval_every_epochs", 0),
        ("save_every_steps", 0),
        ("seed", -1),
        ("micro_batch_size", 0),
        ("num_workers", -1),
        ("cache", "no"),
        ("drop_last", 1),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        StageConfig(**{**VALID, name: value})


@pytest.mark.parametrize(
    "name", ["weight_decay", "ema_decay", "lr", "eps", "warmup_steps", "num_workers", "seed"]
)
def test_zero_is_a_value(name: str) -> None:
    config = StageConfig(**{**VALID, name: 0})
    assert getattr(config, name) == 0
    assert getattr(StageConfig.from_json(config.to_json()), name) == 0
    with pytest.raises(ValueError, match=r"max_grad_norm=0\.0 would stop all learning"):
        StageConfig(**VALID, max_grad_norm=0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epochs": 1, "batch_size": 2, "lr": 0.1, "warm_up": 3}', "warm_up.*valid: epochs"),
        ('{"epochs": 1}', "batch_size"),
        ("[1]", "JSON object"),
        ("{", "the settings, line 1: .*Expecting"),
        ('{"epochs": 1,\n"lr": 0.1, "epochs": 2}', "the settings, line 2: .*'epochs' occurs twice"),
        ('{"epochs": 1, "lr": NaN}', "NaN is no finite number in the field 'lr'"),
        ('{"epochs": 1, "lr": 1' + "0" * 5000 + "}", "no finite number in the field 'lr'"),
        ("[" * 100_000, "nested"),
    ],
)
def test_bad_json(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StageConfig.from_json(text)


def test_settings_of_another_kind_are_named() -> None:
    with pytest.raises(TypeError, match="values must be a dict of settings, got None"):
        StageConfig.from_dict(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text must be a string of JSON, got None"):
        StageConfig.from_json(None)  # type: ignore[arg-type]


def test_presets_are_the_published_settings() -> None:
    for preset, train in ((presets.CVPRW2022, "text"), (presets.TOMM2023, "both")):
        first, second = preset["stage1"], preset["stage2"]
        assert (first.epochs, first.batch_size, first.lr) == (100, 128, 2e-6)
        assert (first.optimizer, first.betas, first.eps) == ("adamw", (0.9, 0.999), 1e-7)
        assert (first.weight_decay, first.trainable, first.encoder_mode) == (0.01, train, "eval")
        assert (second.epochs, second.batch_size, second.lr) == (300, 4096, 2e-5)
        assert (second.optimizer, second.eps, second.weight_decay) == ("adam", 1e-8, None)
        assert second.trainable == "fusion"
        assert first.drop_last
        assert second.drop_last
        assert first.precision == second.precision == "fp16"


def test_the_recommended_preset_differs_from_the_published_one_where_its_page_says() -> None:
    found, published = presets.RECOMMENDED, presets.CVPRW2022
    assert found["loss"].temperature == 0.05
    differ = {
        stage: {n for n, v in vars(found[stage]).items() if v != vars(published[stage])[n]}
        for stage in published
    }
    # What StageConfig has by default, and then what the page names.
    left_out = {"precision", "drop_last"}
    assert differ["stage1"] == {"eps", "weight_decay", "no_decay", *left_out}
    assert differ["stage2"] == {"lr", *left_out}
    assert found["stage2"].lr == 1e-3


def test_parts_are_no_larger_than_the_batch() -> None:
    assert StageConfig(epochs=1, batch_size=8, lr=0.1, micro_batch_size=8).micro_batch_size == 8
    with pytest.raises(ValueError, match="micro_batch_size=9 is larger than batch_size=8"):
        StageConfig(epochs=1, batch_size=8, lr=0.1, micro_batch_size=9)


def test_a_metric_is_named_once_at_least_and_at_most() -> None:
    with pytest.raises(ValueError, match=r"metric must name something, got \(\)"):
        StageConfig(**VALID, metric=())
    with pytest.raises(ValueError, match="metric must name each metric once, got"):
        StageConfig(**VALID, metric=("mean", "mean"))


@pytest.mark.parametrize("name", ["trainable", "metric", "no_decay"])
def test_names_may_be_in_an_array_and_nothing_else_is_taken_for_names(name: str) -> None:
    for names in (["a"], ["a", "b*"]):
        assert StageConfig(**VALID | {name: np.array(names)}) == StageConfig(
            **VALID | {name: tuple(names)}
        )
    wrong: list[Any] = [np.array([1, 2]), np.array([["a"]]), np.array(1), torch.ones(2), {"a"}]
    wrong += [0, False, b"a", {"a": 1}, iter("a"), [""], ["a", None], object()]
    for value in wrong:
        message = own_error(StageConfig, **VALID | {name: value})
        assert message.startswith(f"{name} must be a name or a tuple of names, got "), value


def test_sgd_has_no_betas() -> None:
    with pytest.raises(ValueError, match="'sgd' has no betas and no eps"):
        StageConfig(epochs=1, batch_size=2, lr=0.1, optimizer="sgd", eps=1e-3)


def test_values_of_numpy_are_kept_as_python_s_own() -> None:
    config = StageConfig(
        epochs=np.int64(3),  # type: ignore[arg-type]
        batch_size=np.uint8(8),  # type: ignore[arg-type]
        lr=np.float32(0.5),  # type: ignore[arg-type]
        betas=(np.float64(0.5), np.float16(0.25)),  # type: ignore[arg-type]
        lr_overrides={"encoder.*": np.float32(0.5)},  # type: ignore[dict-item]
        cache=np.False_,  # type: ignore[arg-type]
        patience=np.int32(2),  # type: ignore[arg-type]
    )
    own = StageConfig(
        epochs=3,
        batch_size=8,
        lr=0.5,
        betas=(0.5, 0.25),
        lr_overrides={"encoder.*": 0.5},
        cache=False,
        patience=2,
    )
    assert config == own
    assert config.to_json() == own.to_json()
    assert StageConfig.from_json(config.to_json()) == own


def test_a_rate_that_is_changed_later_does_not_reach_the_settings() -> None:
    rates = {"encoder.*": 0.5}
    config = StageConfig(**VALID, lr_overrides=rates)
    rates["encoder.*"] = -1.0
    assert config.lr_overrides == {"encoder.*": 0.5}
