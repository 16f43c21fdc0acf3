"""The template of an entry's requests, and what all that it makes have in common, looked into once."""

from __future__ import annotations

from runner.core.spec import Json
from runner.manifest.identity import Alike, request_digest
from runner.manifest.template import Template
from runner.schema.model import ModelSchema


class Mould:
    """
    Makes the requests of one template.

    Attributes:
        render: Makes the request of one job. A name that the job's values lack is a ``KeyError``.
        varying: Paths of what differs between the requests, from their root.
        schema_name: Of the first clean request, once `learn` was told of it.
    """

    def __init__(self, template: Template) -> None:
        self.render = template.render
        self.varying = template.varying
        self.schema_name = ""
        self._keys = {str(path[0]) for path in template.varying}
        self._texts: tuple[tuple[str, int], ...] = ()
        self._alike: dict[str, Alike] = {}

    def learn(self, request: dict[str, Json], schema: ModelSchema) -> None:
        """Take in the first clean request, which the schema left as it was made."""
        self.schema_name = schema.name
        free = schema.free_texts(request)
        if self._keys <= free.keys():
            self._texts = tuple((key, free[key]) for key in self._keys)

    def is_clean(self, request: dict[str, Json]) -> bool:
        """Say whether a request must be as clean as the first, since only texts are others that no rule is about."""
        for key, longest in self._texts:
            text = request.get(key)
            if type(text) is not str or not 0 < len(text) <= longest:
                return False
        return self._texts != ()

    def digest(self, request: dict[str, Json], schema: str) -> str:
        """
        Give what `request_digest` does, for a request that was normalised by the schema of this name.

        Raises:
            ValueError: As for `request_digest`.
        """
        alike = self._alike.get(schema)
        if alike is None:
            if not self._keys <= request.keys():
                return request_digest(request)
            alike = self._alike[schema] = Alike(request, self._keys)
        try:
            return alike.digest(request)
        except KeyError:
            # A null in the row took a key away.
            return request_digest(request)
