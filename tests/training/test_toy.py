import torch
from toy import WordText


def test_word_text_is_random_in_train_mode() -> None:
    """The toy must be able to show a forgotten random state."""
    text = WordText(0.5).train()
    assert not torch.equal(text(["word 1"]), text(["word 1"]))
