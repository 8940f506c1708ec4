"""SentenceTransformersText gives the features of ``encode``, whatever the model is made of."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from many_threads import check_in_threads
from tiny import WORDS, make_tokenizer
from torch import nn

from fusecomp.encoders import SentenceTransformersText

PROMPT = "is and "
POSITIONS = 12
DTYPES = {torch.float32: 1e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def library(transformers: Any) -> Any:
    return pytest.importorskip("sentence_transformers", reason="needs the extra sentence")


@pytest.fixture(scope="module")
def parts(library: Any) -> Any:
    """The package of the modules that a model is made of, which version 5.4 has moved."""
    moved = "sentence_transformers.sentence_transformer"
    here = importlib.util.find_spec(moved) is not None
    return importlib.import_module(f"{moved}.modules" if here else "sentence_transformers.models")


@pytest.fixture(scope="module")
def bert(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT of 16 dimensions."""
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    make_tokenizer(transformers).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def make(library: Any, parts: Any, transformers: Any, bert: Path) -> Make:
    """Build a model of a kind, 16 wide; the options are those of SentenceTransformer."""

    def transformer(pooling: str = "mean", include_prompt: bool = True) -> list[nn.Module]:
        pool = parts.Pooling(16, pooling_mode=pooling, include_prompt=include_prompt)
        return [parts.Transformer(str(bert)), pool]

    def words() -> nn.Module:
        tokenizer = importlib.import_module(f"{parts.__name__}.tokenizer").WhitespaceTokenizer
        embeddings: nn.Module = parts.WordEmbeddings(
            tokenizer(WORDS, stop_words=set()), torch.randn(len(WORDS), 16), True, POSITIONS
        )
        return embeddings

    def static() -> nn.Module:
        embeddings: nn.Module = parts.StaticEmbedding(
            make_tokenizer(transformers).backend_tokenizer, embedding_dim=16
        )
        return embeddings

    kinds: dict[str, Callable[[], list[nn.Module]]] = {
        **{pooling: lambda pooling=pooling: transformer(pooling) for pooling in POOLINGS},  # type: ignore[misc]
        "without-prompt": lambda: transformer("mean", include_prompt=False),
        "normalize": lambda: [*transformer(), parts.Normalize()],
        "dense": lambda: [*transformer(), parts.Dense(16, 8)],
        "static": lambda: [static()],
        "static-normalize": lambda: [static(), parts.Normalize()],
        "bag-of-words": lambda: [parts.BoW(WORDS)],
        "words": lambda: [words(), parts.Pooling(16)],
        "lstm": lambda: [words(), parts.LSTM(16, 8), parts.Pooling(16)],
        "cnn": lambda: [words(), parts.CNN(16, 8), parts.Pooling(24)],
        "router": lambda: [
            parts.Router.for_query_document([static(), parts.Normalize()], transformer())
        ],
    }

    def build(kind: str, **options: Any) -> Any:
        torch.manual_seed(0)
        return library.SentenceTransformer(modules=kinds[kind](), device="cpu", **options)

    return build


POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
OTHERS = ("without-prompt", "normalize", "dense", "static", "static-normalize", "bag-of-words")
KINDS = (*POOLINGS, *OTHERS, "words", "lstm", "cnn", "router")
# These read texts of any length.
UNLIMITED = ("static", "static-normalize", "bag-of-words")

texts = st.lists(
    st.lists(st.sampled_from(WORDS[3:]), min_size=1, max_size=2 * POSITIONS).map(" ".join),
    min_size=1,
    max_size=5,
)
prompts = st.sampled_from(
    [
        {},
        {"prompts": {"query": PROMPT}},
        {"prompts": {"query": PROMPT}, "default_prompt_name": "query"},
        {"prompts": {"query": "", "other": PROMPT}, "default_prompt_name": "query"},
    ]
)


def reader(model: Any, kind: str) -> Any:
    """The module that reads the texts."""
    return model[0].sub_modules["document"][0] if kind == "router" else model[0]


@pytest.mark.filterwarnings("ignore:texts longer than the context")
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(
    texts=texts,
    prompt=prompts,
    truncate=st.sampled_from([None, 5, 16, 100]),
    length=st.sampled_from([None, 6, POSITIONS]),
    dtype=st.sampled_from(sorted(DTYPES, key=str)),
)
def test_features_are_those_of_the_library(
    make: Make,
    kind: str,
    texts: list[str],
    prompt: dict[str, Any],
    truncate: int | None,
    length: int | None,
    dtype: torch.dtype,
) -> None:
    model = make(kind, truncate_dim=truncate, **prompt).to(dtype)
    if length is not None and kind not in UNLIMITED:
        reader(model, kind).max_seq_length = length
    text = SentenceTransformersText(model)
    expected = model.encode(texts, convert_to_tensor=True).clone()
    features = text(texts)
    # A batch of another order has other padding, which rounds otherwise.
    torch.testing.assert_close(features.detach(), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype])
    assert features.dtype == expected.dtype
    assert features.shape == (len(texts), text.output_dim)
    assert features.requires_grad == any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", ["mean", "without-prompt", "words", "router"])
@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_a_text_that_is_cut_is_named_and_the_prompt_counts(
    make: Make, kind: str, prompt: str
) -> None:
    model = make(kind, prompts={"query": prompt}, default_prompt_name="query")
    reader(model, kind).max_seq_length = 8
    # The tokenizer of words adds no end.
    free = 8 - len(prompt.split()) - (kind != "words")
    text = SentenceTransformersText(model)
    text(["red " * free, "blue"])
    with pytest.warns(UserWarning, match=f"are cut, for example '{prompt}red red"):
        text(["red " * (free + 1), "blue"])


@pytest.mark.parametrize("kind", UNLIMITED)
def test_a_model_without_a_limit_cuts_nothing(make: Make, kind: str) -> None:
    text, long = SentenceTransformersText(make(kind)), ["red " * 5000]
    torch.testing.assert_close(text(long), make(kind).encode(long, convert_to_tensor=True))


def test_static_embeddings_learn(make: Make) -> None:
    model = make("static", prompts={"query": PROMPT}, default_prompt_name="query")
    SentenceTransformersText(model)(["red", "red blue"]).sum().backward()
    moved = model[0].embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert moved == sorted(WORDS.index(word) for word in ("is", "and", "red", "blue"))


def test_a_model_of_unknown_width_says_so(make: Make) -> None:
    model = make("static")
    model[0].get_embedding_dimension = lambda: None
    model[0].get_sentence_embedding_dimension = lambda: None
    with pytest.raises(ValueError, match=r"does not know the width .* pass text_dim="):
        SentenceTransformersText(model).output_dim  # noqa: B018


@pytest.mark.filterwarnings("ignore:texts longer than the context")
def test_threads_do_not_disturb_one_another(make: Make) -> None:
    batches = [["red"], ["red " * (2 * POSITIONS)], ["is blue", "blue " * POSITIONS]]
    check_in_threads(SentenceTransformersText(make("mean")), batches)
