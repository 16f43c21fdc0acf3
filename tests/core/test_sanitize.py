"""Keys and signatures: which texts of a manifest look like one, and what messages hide."""

from __future__ import annotations

import pytest

from runner.core.sanitize import looks_like_key, redact, sanitize_line


@pytest.mark.parametrize(
    "text",
    [
        "sk-aB3dE5fG7hI9jK1lM3nO5pQ7rS9t",
        "the key is sk-aB3dE5fG7hI9jK1lM3nO5pQ7rS9t, use it",
        "https://example.com/?key=sk-aB3dE5fG7hI9jK1lM3nO5pQ7rS9t",
        "sk-proj-aB3dE5fG7hI9jK1lM3nO5",
        "Bearer aB3dE5fG7hI9jK1lM3nO5",
        "Authorization: bearer aB3dE5fG7hI9jK1lM3nO5",
        "api_key=0123456789abcdef0123456789abcdef",
        '"apiKey": "0123456789abcdef0123456789abcdef"',
    ],
)
def test_keys(text: str) -> None:
    """The usual shapes of keys are recognized anywhere in a text."""
    assert looks_like_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a kitten",
        "Bearer of bad news: a kitten walks through the door at dawn",
        "A task-force-of-kittens-from-the-year-2031, slow-motion, desk-lamp-lit-scene-number-2",
        "risk-0123456789012345678901234567890",
        "the key: a small brass one, 1920s, api documentation on a desk",
        "https://bucket.example.com/a.png?Expires=1&OSSAccessKeyId=LTAI5tabcdefgh&Signature=0123456789abcdef0123456789",
        "https://bucket.example.com/a.png?X-Amz-Security-Token=0123456789abcdef0123456789abcdef&api_key_id=5",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
        "seedance-1-5-pro-251215",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "一只橘猫在清晨的阳光下慢慢走过草地: 镜头轻轻跟随 = 电影质感",
    ],
)
def test_texts_that_are_not_keys(text: str) -> None:
    """Prompts, signed URLs, images and digests are not keys."""
    assert not looks_like_key(text)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("key [redacted] is bad", "key sk-abcDEF123 is bad"),
        ("Bearer [redacted]", "Bearer abc.def"),
        ("see https://h.example/p then", "see https://h.example/p?X-Tos-Signature=1&a=b then"),
        ("https://h.example/p", "https://user:pw@h.example/p#x"),
        (r"https:\/\/h.example\/p", r"https:\/\/h.example\/p?Signature=1"),
        ("api_key=[redacted]&x", "api_key=hush&x"),
        ("api_key: [redacted], x", "api_key: 0123456789abcdef01234567, x"),
        ("the token: expired", "the token: expired"),
        ("[redacted] and sk_1", "sk_live_0123456789 and sk_1"),
        ("s3://h/p", "s3://user:pw@h/p?versionId=1"),
        ("request 0a1b2c3d4e5f60718293a4b5c6d7e8f9", "request 0a1b2c3d4e5f60718293a4b5c6d7e8f9"),
        ("my [redacted]!", "my own-secret!"),
    ],
)
def test_redaction(shown: str, text: str) -> None:
    """
    Keys and signed queries are hidden in a message.
    """
    assert shown == redact(text, ["own-secret"])


def test_a_key_cannot_hide_behind_control_characters() -> None:
    """
    Invisible characters are removed before keys are searched for.
    """
    assert "abcdef" not in sanitize_line("s\x00k-abcdef123", max_chars=99)


def test_redaction_of_opaque_texts() -> None:
    """
    In what a user wrote, a long run of letters and digits may be a key too, unless it is part of a path.
    """
    key, path = "0a1b2c3d4e5f60718293a4b5c6d7e8f9", "/x/0a1b2c3d4e5f60718293a4b5c6d7e8f9"

    assert ("[redacted]", path) == (redact(key, opaque=True), redact(path, opaque=True))
