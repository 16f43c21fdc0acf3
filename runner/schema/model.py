"""Everything that one document says about a request, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.core.problem import Finding
from runner.schema.normalise import Plan, apply, plan
from runner.schema.paths import Pattern, find, strings
from runner.schema.strict import strict

if TYPE_CHECKING:
    from runner.schema.body import BodyLimit
    from runner.schema.media import MediaField
    from runner.schema.words import WordLimit

Check = Callable[[Any], bool]

# No model has this name, and every document refuses it.
_ANY_OTHER = ""


class ModelSchema:
    """
    The schema of one document, compiled when it is first asked.

    What clean requests do not need is imported where it is needed: a `validate` of a few jobs is over sooner.

    Attributes:
        name: As in the name of its file, such as ``wan-kf2v``.
        document: The schema itself; not to be altered.
    """

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name = name
        self.document = document
        self._checks: dict[str, Check] = {}

    def __repr__(self) -> str:
        return f"ModelSchema({self.name!r})"

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models that the catalog holds against this document, its own first."""
        alternative = self.document.get("x-alternative", {}).get("models", ())
        return (*self.document["x-models"], *alternative)

    @cached_property
    def media_fields(self) -> tuple[MediaField, ...]:
        """The places where a picture is named, and what it may be."""
        from runner.schema.media import media_fields

        return media_fields(self.document)

    def normalise(self, request: dict[str, Any]) -> dict[str, Any]:
        """
        Give each value the type that the document wants, where nothing is lost by it.

        The request comes back itself where nothing changes, and is never altered.
        """
        return apply(self._plan, request)

    def is_clean(self, request: dict[str, Any]) -> bool:
        """Say whether there is neither an error nor a warning, in a microsecond or two."""
        model = request.get("model")
        if model.__class__ is not str:
            return False
        fits = self._checks.get(model) or self._check_for(model)
        try:
            return fits(request) or (self._has_to_count and self._is_clean_by_hand(request))
        except ValueError:
            # A key that is not text: nothing that JSON could carry.
            return False

    def free_texts(self, request: dict[str, Any]) -> dict[str, int]:
        """
        List the keys of a clean request whose texts could be others of one character up to so many.

        It would stay clean with any of them; where that takes more than a look at their lengths, none is listed.
        """
        from runner.schema.free import free_texts

        model = request["model"]
        if not self._check_for(model)(request):
            return {}
        return free_texts(strict(self.document, model=model if model in self.models else None))

    def findings(self, request: dict[str, Any]) -> list[Finding]:
        """List everything that is wrong with a normalised request, errors and warnings, in words."""
        # Half of what a `validate` without problems would cost to start is the import of this.
        from runner.schema.explain import explain

        model = request.get("model") if isinstance(request, dict) else None
        return explain(self.document, request, subject=model if isinstance(model, str) else None)

    def body_finding(self, size_bytes: int) -> Finding | None:
        """Say what is wrong with a body of this size, for a caller that knows better than the request does."""
        return self._body_limit.finding(size_bytes)

    @cached_property
    def _plan(self) -> Plan:
        return plan(self.document)

    @cached_property
    def _body_limit(self) -> BodyLimit:
        from runner.schema.body import BodyLimit

        return BodyLimit(**self.document["x-body-bytes"])

    @cached_property
    def _word_limits(self) -> tuple[tuple[Pattern, WordLimit], ...]:
        from runner.schema.words import WordLimit

        keyword = "x-recommended-words"
        described = strings(self.document)
        return tuple((path, WordLimit(**text[keyword])) for path, text in described if keyword in text)

    @cached_property
    def _has_to_count(self) -> bool:
        return bool(self._word_limits or self.media_fields)

    def _check_for(self, model: str) -> Check:
        """Give the check of one model, compiled once; models that the document does not name share one."""
        named = model if model in self.models else _ANY_OTHER
        if named not in self._checks:
            self._checks[named] = _compile(strict(self.document, model=model if named else None))
        return self._checks[named]

    @cached_property
    def _loose(self) -> Check:
        return _compile(strict(self.document, refuses_long=False))

    def _is_clean_by_hand(self, request: dict[str, Any]) -> bool:
        """Judge a request that did not fit, perhaps only because a text in it is long."""
        from runner.schema.body import body_bytes

        return (
            self._loose(request)
            and not any(
                limit.excess(text) for path, limit in self._word_limits for _, text in find(request, path)
            )
            and self._body_limit.finding(body_bytes(request)) is None
        )


def _compile(schema: dict[str, Any]) -> Check:
    # A command that checks nothing does not pay for the import.
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(schema).is_valid
