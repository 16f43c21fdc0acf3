"""
``vars``: names for values that a manifest, or one of its jobs, uses more than once.

Most manifests have none: only `own_variables` knows how one is worked out.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.core.problem import Finding
from runner.core.spec import Json
from runner.core.value import frozen


@frozen
class Variables:
    """
    The variables of a manifest with their values.

    Attributes:
        values: The date among them.
        overrides: Those that the command line gave: no job's own variable hides them.
    """

    values: Mapping[str, Json]
    overrides: Mapping[str, Json]


def read_variables(
    written: Mapping[str, Json], overrides: Mapping[str, Json], date: str
) -> tuple[Variables, list[Finding]]:
    """
    Work out the variables of a manifest.

    >>> read_variables({"run": "${date}-a", "size": "720p"}, {"size": "480p"}, "2026-11-21")[0].values
    {'date': '2026-11-21', 'size': '480p', 'run': '2026-11-21-a'}
    """
    given = {"date": date, **overrides}
    if not written:
        return Variables(given, overrides), []
    from runner.manifest.own_variables import own_variables
    from runner.manifest.template import Scope

    start = Scope(constants=given)
    own = own_variables(written, start, overrides)
    return Variables(own.scope.constants, overrides), own.findings
