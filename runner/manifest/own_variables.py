"""
The variables of a manifest or of one of its jobs, worked out over the names before them.

A variable may use the date and those that stand above it; one of a job may use
the job's matrix, row and repetition too. The command line overrides them all.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.core.problem import Finding
from runner.core.spec import Json
from runner.core.value import frozen
from runner.manifest.template import Render, Scope, compile_template


@frozen
class OwnVariables:
    """
    What the variables of one job add to its names.

    Attributes:
        scope: The names, with those of the variables among them.
        computed: Variables that differ from job to job, in the order to work them out.
        findings: What is wrong with them, by paths from the variables' root.
    """

    scope: Scope
    computed: tuple[tuple[str, Render], ...]
    findings: list[Finding]


def own_variables(written: Mapping[str, Json], scope: Scope, overrides: Mapping[str, Json]) -> OwnVariables:
    """Add variables to a scope, each over the names before it, and the command line's over all."""
    constants = dict(scope.constants)
    varying = set(scope.varying)
    computed: list[tuple[str, Render]] = []
    findings: list[Finding] = []
    for name, value in written.items():
        if name in overrides:
            constants[name] = overrides[name]
            varying.discard(name)
            continue
        template = compile_template(value, Scope(constants, frozenset(varying), scope.is_open))
        findings += [Finding((name, *found.path), found.message, found.hint) for found in template.findings]
        if template.varying:
            computed.append((name, template.render))
            varying.add(name)
        else:
            constants[name] = template.render({})
            varying.discard(name)
    return OwnVariables(Scope(constants, frozenset(varying), scope.is_open), tuple(computed), findings)
