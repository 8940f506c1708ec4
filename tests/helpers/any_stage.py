"""Settings of a stage, drawn by Hypothesis."""

from typing import Any

from hypothesis import strategies as st


def any_stage(batch_size: int) -> st.SearchStrategy[dict[str, Any]]:
    """What learns, in which parts, and what is cached; on tiny models each is quick."""
    trainable = st.sampled_from([("both", "fusion"), "text", ("image", "fusion"), "fusion"])
    return st.fixed_dictionaries(
        {
            "batch_size": st.just(batch_size),
            "trainable": trainable,
            "encoder_mode": st.sampled_from(["eval", "train"]),
            "micro_batch_size": st.none() | st.integers(1, batch_size),
            "drop_last": st.booleans(),
            "unique_targets": st.booleans(),
            "gradient_checkpointing": st.booleans(),
            "cache": st.booleans(),
            "max_grad_norm": st.none() | st.just(0.5),
            "seed": st.integers(0, 99),
        }
    )
