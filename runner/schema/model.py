"""Everything that one document says about a request, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from runner.core.problem import Finding
from runner.schema.body import BodyLimit
from runner.schema.media import MediaField, media_fields
from runner.schema.normalise import Plan, apply, plan
from runner.schema.paths import Pattern, find, strings
from runner.schema.strict import LONG_MEDIA, strict
from runner.schema.words import WordLimit


class ModelSchema:
    """
    The schema of one document, compiled when it is first asked.

    Attributes:
        name: As in the name of its file, such as ``wan-kf2v``.
        document: The schema itself; not to be altered.
    """

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name = name
        self.document = document

    def __repr__(self) -> str:
        return f"ModelSchema({self.name!r})"

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the document is about."""
        return tuple(self.document["x-models"]) or tuple(self.document["x-alternative"]["models"])

    @cached_property
    def media_fields(self) -> tuple[MediaField, ...]:
        """The places where a picture is named, and what it may be."""
        return media_fields(self.document)

    def normalise(self, request: dict[str, Any]) -> dict[str, Any]:
        """
        Give each value the type that the document wants, where nothing is lost by it.

        The request comes back itself where nothing changes, and is never altered.
        """
        return apply(self._plan, request)

    def is_clean(self, request: dict[str, Any]) -> bool:
        """Say whether there is neither an error nor a warning, in about a microsecond."""
        try:
            fits = self._fits(request)
        except ValueError:
            # Keys that are not text, or a lone surrogate: nothing that JSON could carry.
            return False
        if not fits:
            return self._has_long_media(request) and not self.findings(request)
        return not self._word_limits or self._has_few_words(request)

    def findings(self, request: dict[str, Any]) -> list[Finding]:
        """List everything that is wrong with a normalised request, errors and warnings, in words."""
        # Half of what a `validate` without problems would cost to start is the import of this.
        from runner.schema.explain import explain

        model = request.get("model") if isinstance(request, dict) else None
        found = explain(self.document, request, subject=model if isinstance(model, str) else None)
        return found or self._unwritable(request)

    def body_finding(self, size_bytes: int) -> Finding | None:
        """Say what is wrong with a body of this size, for a caller that knows better than the request does."""
        return BodyLimit(**self.document["x-body-bytes"]).finding(size_bytes)

    @cached_property
    def _plan(self) -> Plan:
        return plan(self.document)

    @cached_property
    def _fits(self) -> Callable[[Any], bool]:
        import jsonschema_rs

        return jsonschema_rs.Draft202012Validator(strict(self.document)).is_valid

    @cached_property
    def _word_limits(self) -> tuple[tuple[Pattern, WordLimit], ...]:
        keyword = "x-recommended-words"
        return tuple(
            (path, WordLimit(**text[keyword])) for path, text in strings(self.document) if keyword in text
        )

    def _has_few_words(self, request: dict[str, Any]) -> bool:
        return not any(
            limit.excess(text) for pattern, limit in self._word_limits for _, text in find(request, pattern)
        )

    def _has_long_media(self, request: dict[str, Any]) -> bool:
        return any(
            isinstance(text, str) and len(text) > LONG_MEDIA
            for media in self.media_fields
            for _, text in find(request, media.path)
        )

    def _unwritable(self, request: dict[str, Any]) -> list[Finding]:
        try:
            self._fits(request)
        except ValueError:
            return [Finding((), "the request has text that UTF-8 can't carry", "look for a broken character")]
        return []
