"""The folder of a saved model: ``config.json`` tells its parts, ``weights.safetensors`` holds all.

Weights are loaded only into parts of the same classes and settings; where the features of a cached
encoder were trained on, any encoder may take their place.
"""

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fusecomp._core.abilities import known_fingerprint, lookups_of, token_sides
from fusecomp._core.files import checksum, is_workdir, reading, replace_folder
from fusecomp._core.identity import class_name, differences, plain_name, settings, without_compile
from fusecomp._core.keywords import taken_keywords
from fusecomp._core.model_card import CARD, model_card, require_unedited, write_card
from fusecomp._core.safetensors import read_safetensors, write_safetensors
from fusecomp._core.strict_json import read_json, write_json
from fusecomp._core.weights import check_weights, kind_of
from fusecomp.distributed import first_alone, is_sharded, plain_class, shard_like, whole
from fusecomp.types import FUSION_KEYWORDS, SIDES, Fusion

_FORMAT = "fusecomp.model/3"
_CONFIG, _WEIGHTS = "config.json", "weights.safetensors"
# The settings of an extraction, which follow the encoder's name in the key of features.
_EXTRACTION = re.compile(r"(; images by content)?(, computed in \w+)?(, stored as [\w.]+)?$")


# The classes of fusions that are rebuilt, by name.
_Classes = Mapping[str, type[nn.Module]]


@dataclass(frozen=True, slots=True)
class Parts:
    """Classes and settings of an encoder and a fusion."""

    encoder: str
    fusion: str
    # Of the fusion's constructor, where it can be rebuilt from them.
    arguments: dict[str, object] | None
    # The key of the features that replace an encoder, if they do; may be empty.
    features: str | None
    settings: dict[str, str]


def describe_parts(
    encoder: object, fusion: Fusion, arguments: dict[str, object] | None = None
) -> Parts:
    """Return what is saved of an encoder and a fusion."""
    cached = set(SIDES) <= set(lookups_of(encoder))
    described = {} if cached else settings(encoder, "encoder")
    described |= settings(fusion, "fusion")
    # On pooled features alone, a fusion that has learnt on tokens gives wrong queries.
    if tokens := token_sides(encoder, taken_keywords(fusion, FUSION_KEYWORDS)):
        described["token_sides"] = " and ".join(tokens)
    features = known_fingerprint(encoder) if cached else None
    return Parts(class_name(encoder), class_name(fusion), arguments, features, described)


def arguments_of(fusion: Fusion, classes: _Classes) -> dict[str, object] | None:
    """Return the arguments that rebuild a fusion; None of a class that is not rebuilt."""
    module = without_compile(fusion)
    if plain_class(module) is not classes.get(class_name(module)):
        return None
    # Each fusion keeps its arguments under their own names.
    names = inspect.signature(classes[class_name(module)]).parameters
    return {name: value for name, value in vars(module).items() if name in names}


@dataclass(frozen=True, slots=True)
class SavedModel:
    """Content of a saved model's folder."""

    path: Path
    parts: Parts
    weights: Mapping[str, Tensor]

    def rebuild_fusion(self, classes: _Classes, device: torch.device) -> Fusion:
        """Return the fusion with its dtype, on a device; its weights are not yet loaded."""
        name, arguments = self.parts.fusion, self.parts.arguments
        if arguments is None or name not in classes:
            raise ValueError(
                f"{self.path} holds the fusion {name}, which is not rebuilt: pass fusion="
            )
        where, start = f"{self.path} holds no complete {name}", "fusion."
        weights = {n.removeprefix(start): t for n, t in self.weights.items() if n.startswith(start)}
        try:
            with torch.device("meta"):  # sizes may be a hostile file's
                expected = classes[name](**arguments).state_dict()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{where}: {error}") from error
        check_weights(where, weights, expected)
        dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), None)
        return classes[name](**arguments).to(device, dtype)

    def copy_into(self, model: nn.Module, parts: Parts) -> None:
        """Load the weights, after every check; what is refused leaves the model as it was."""
        live = self.parts.features is None
        current = {n: t for n, t in model.state_dict().items() if live or n.startswith("fusion.")}
        if not live:  # any encoder will do
            kept = {n: s for n, s in parts.settings.items() if not n.startswith("encoder")}
            parts = replace(parts, encoder=self.parts.encoder, settings=kept)
        saved, given = (f"{p.encoder} and {p.fusion}" for p in (self.parts, parts))
        if saved != given:
            raise ValueError(f"{self.path} holds {saved}, but {given} was given to load it into")
        check_weights(
            f"{self.path} does not fit the encoder and fusion given",
            self.weights,
            {plain_name(name): tensor for name, tensor in current.items()},
        )
        if found := list(differences(self.parts.settings, parts.settings)):
            raise ValueError(
                f"{self.path} was saved with other settings than those of the encoder and fusion "
                f"given: {'; '.join(found[:3])}"
            )
        weights = {
            name: shard_like(self.weights[plain_name(name)], current[name]) for name in current
        }
        model.load_state_dict(weights, strict=live)

    def warn_of_other_features(self, encoder: object) -> None:
        """Warn where the fusion was trained on the features of another encoder than this one."""
        saved = _EXTRACTION.sub("", self.parts.features or "")
        given = _EXTRACTION.sub("", known_fingerprint(encoder))
        if saved and given and saved != given:
            warnings.warn(
                f"the fusion of {self.path} was trained on features of the key {saved!r}, but this "
                f"encoder's is {given!r}: if it gives other features, queries will be wrong",
                stacklevel=3,
            )


def write_model(
    path: Path, parts: Parts, weights: Mapping[str, Tensor], doc: str | None = None
) -> None:
    """Write a folder, atomically; of sharded weights, every process must call it.

    ``doc`` is the docstring of the fusion's class, for the card.
    """
    tensors = {plain_name(name): _whole(name, tensor) for name, tensor in weights.items()}
    tied = dict(_tied(tensors))
    config: dict[str, object] = {"format": _FORMAT, **asdict(parts), "tied": tied}
    sharded = any(map(is_sharded, weights.values()))
    with first_alone() if sharded else nullcontext(True) as first:
        if not first:
            return
        require_unedited(path)
        with replace_folder(path, (_CONFIG, _WEIGHTS, CARD)) as folder:
            kept = {name: t.contiguous() for name, t in tensors.items() if name not in tied}
            config["weights"] = write_safetensors(folder / _WEIGHTS, kept, {"format": "pt"})
            config["checksum"] = checksum(config)
            write_json(folder / _CONFIG, config)
            write_card(folder, model_card(asdict(parts), doc))


def _whole(name: str, tensor: Tensor) -> Tensor:
    tensor = whole(tensor).detach()
    if (kind := kind_of(tensor)) != "dense":
        raise ValueError(f"{name!r} is {kind}, which cannot be saved")
    return tensor.cpu()


def _tied(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield each name whose tensor is that of an earlier one, and the earlier one's name."""
    first: dict[object, str] = {}
    for name, tensor in tensors.items():
        memory = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if tensor.nbytes and first.setdefault(memory, name) != name:
            yield name, first[memory]


def read_model(path: Path) -> SavedModel:
    """Read a folder, and verify its checksums."""
    if not path.exists():
        raise FileNotFoundError(f"no saved model {path}")
    if path.is_file():
        raise ValueError(
            f"{path} is a file; a saved model is a folder. Weights in best/ of a workdir go into "
            "the model of the training's run: load_state_dict(torch.load(path, weights_only=True)"
            '["weights"]["model"], strict=False)'
        )
    if is_workdir(path) and not (path / _WEIGHTS).exists():
        raise ValueError(
            f"{path} is the workdir of a training, no saved model: the same fit again gives its "
            "run, and run.model.save(folder) writes one"
        )
    config = read_json(path / _CONFIG)
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        form = config.get("format") if isinstance(config, dict) else config
        raise ValueError(f"{path} is no saved ComposedEncoder ({form!r})")
    problem, way_out = "torn or changed", "save the model again"
    with reading(path / _CONFIG, "file", problem, way_out):
        known = config.pop("checksum")
        if known != checksum(config):
            raise ValueError("its content is not that of its checksum")
        arguments, features, kept = config["arguments"], config["features"], config["settings"]
        kinds = dict | None, str | None, dict
        if not all(map(isinstance, (arguments, features, kept), kinds)):
            raise ValueError("its arguments, features or settings are of another kind")
        parts = Parts(str(config["encoder"]), str(config["fusion"]), arguments, features, kept)
    with reading(path / _WEIGHTS, "file", problem, way_out):
        _, tensors, found = read_safetensors(path / _WEIGHTS)
        if found is None or found != config["weights"]:
            raise ValueError(f"its weights are not those that {_CONFIG} names")
        weights = {**tensors, **{name: tensors[other] for name, other in config["tied"].items()}}
    return SavedModel(path, parts, weights)
