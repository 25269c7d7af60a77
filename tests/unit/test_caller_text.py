"""Texts of callers in logs: no key, no second record, no second field."""

import pytest

from serve_app.caller_text import mask_keys, one_word, printable

KEY = "sk-llm-0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (KEY, "sk-***"),
        ("/v1/models/sk-abcdefgh", "/v1/models/sk-***"),
        ("x-priority 'sk-proj_A-b_C1234' and sk-ant-api03-xyz", "x-priority 'sk-***' and sk-***"),
        (f"key{KEY} %20sk-12345678", "keysk-*** %20sk-***"),
    ],
)
def test_what_looks_like_a_key_is_masked(text: str, masked: str) -> None:
    assert mask_keys(text) == masked


@pytest.mark.parametrize(
    "text", ["", "sk-", "sk-1234567", "task-0123456789", "disk-image-of-today"]
)
def test_other_words_stay(text: str) -> None:
    assert mask_keys(text) == text


@pytest.mark.parametrize("before", range(150, 210))
def test_a_key_is_masked_where_the_text_is_cut(before: int) -> None:
    """No part of one is shown."""
    assert KEY[:11] not in printable("/" * before + KEY)


def test_a_text_is_one_field_of_its_line() -> None:
    assert one_word("/a 200 ok key=boss\u00a0x") == "/a%20200%20ok%20key=boss\\xa0x"
