"""What must be known of a callable that may or may not be a module."""

import pytest
import torch
from torch import nn

from fusecomp._core.devices import device_of, inference, require_one_device


def test_the_device_is_that_of_the_first_weight() -> None:
    assert device_of(len, nn.ReLU(), nn.Linear(2, 2, device="meta")) == torch.device("meta")


def test_a_buffer_tells_the_device_too() -> None:
    module = nn.Module()
    module.register_buffer("table", torch.empty(2, device="meta"))
    assert device_of(module) == torch.device("meta")


def test_without_weights_it_is_the_cpu() -> None:
    assert device_of(len, nn.ReLU()) == torch.device("cpu")
    assert device_of() == torch.device("cpu")


def test_two_parts_with_tensors_need_one_device() -> None:
    here, elsewhere = nn.Linear(2, 2), nn.Linear(2, 2, device="meta")
    for parts in ((here, here), (elsewhere, elsewhere), (elsewhere, nn.ReLU()), (len, elsewhere)):
        require_one_device(*parts)
    for parts, message in (((here, elsewhere), "cpu.*meta"), ((elsewhere, here), "meta.*cpu")):
        with pytest.raises(ValueError, match=f"the encoder is on {message}: move both to one"):
            require_one_device(*parts)


def mixed() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model.train()
    model[1].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_inference_evaluates_and_gives_each_module_its_own_mode_back() -> None:
    model = mixed()
    before = modes(model)
    assert True in before
    assert False in before
    with inference(model, len, model):
        assert not any(modes(model))
        assert not torch.is_grad_enabled()
        assert not model(torch.ones(2, 2)).requires_grad
    assert modes(model) == before
    assert torch.is_grad_enabled()


def test_an_error_inside_gives_the_modes_back_too() -> None:
    model = mixed()
    before = modes(model)
    with pytest.raises(RuntimeError), inference(model):
        raise RuntimeError
    assert modes(model) == before
    assert torch.is_grad_enabled()
