from fusecomp.evaluation import describe_protocol, protocol_differences

FASHIONIQ = {"dataset": "FashionIQ", "gallery": "original", "reference": "kept"}


def test_equal_protocols_differ_in_nothing() -> None:
    assert protocol_differences(FASHIONIQ, dict(reversed(FASHIONIQ.items()))) == []


def test_each_option_that_differs_is_named_with_both_values() -> None:
    other = {**FASHIONIQ, "gallery": "val", "missing": "1 of 9 queries"}
    assert protocol_differences(FASHIONIQ, other) == [
        "gallery original / val",
        "missing not said / 1 of 9 queries",
    ]
    assert protocol_differences(other, FASHIONIQ) == [
        "gallery val / original",
        "missing 1 of 9 queries / not said",
    ]


def test_a_protocol_is_one_line() -> None:
    assert describe_protocol(FASHIONIQ) == "dataset FashionIQ, gallery original, reference kept"
