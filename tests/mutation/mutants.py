"""
The mutants of a module: its source with one small fault.

Libraries for this exist. They leave out what matters most here, a call whose result nobody
uses (``os.fsync(file)``, ``store.save(job)``) and the conditions inside SQL.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

KINDS = ("removed", "condition", "comparison", "boolean", "constant", "arithmetic", "returned", "sql")

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ORDERINGS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
_EXTREMES = {"min": "max", "max": "min"}

_TUNED = 100
"""Numbers from here on are sizes and bounds that were chosen; one more or less of them is no fault."""

_UNCHECKED = ("annotation", "returns", "decorator_list", "type_params")

_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|WHERE|PRAGMA|BEGIN|AND|EXISTS)\b")
_SQL_FAULTS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bAND\b", "OR"),
        (r"\bOR\b(?! (IGNORE|REPLACE))", "AND"),
        (r"\bIS NULL\b", "IS NOT NULL"),
        (r"\bIS NOT NULL\b", "IS NULL"),
        (r"(?<!NOT )\bIN (?=\()", "NOT IN "),
        (r"\bNOT (?=IN|EXISTS|\()", ""),
        (r"(?<!NOT )\bEXISTS\b", "NOT EXISTS"),
        (r"(?<=WHERE )([\w.]+) = ", r"\1 != "),
        (r"(?<=AND )([\w.]+) = ", r"\1 != "),
        (r"(\w+) = NULL\b", r"\1 = \1"),
        (r"\bOR IGNORE\b", "OR REPLACE"),
        (r"\bOR REPLACE\b", "OR IGNORE"),
        (r"\bORDER BY ([\w.]+)", r"ORDER BY \1 DESC"),
        (r"= FULL\b", "= OFF"),
        (r"\bBEGIN IMMEDIATE\b", "BEGIN"),
    )
]


@dataclass(frozen=True, slots=True)
class Mutant:
    """
    One fault.

    Attributes:
        path: Of the module, from the root of the project.
        start: Where the text to be replaced begins, in bytes of the source; ``end`` is where it ends.
    """

    path: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        """Return the source with the fault in it."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def __str__(self) -> str:
        before, after = (_short(text) for text in (self.before, self.after))
        return f"{self.path}:{self.line} {self.kind}: {before}  ->  {after}"


def mutants(path: str, source: bytes) -> list[Mutant]:
    r"""
    Return all mutants of a module, in the order of their lines.

    >>> for mutant in mutants("m.py", b"def f(a):\n    if a > 1:\n        g(a)\n"):
    ...     print(mutant)
    m.py:2 comparison: a > 1  ->  a >= 1
    m.py:2 condition: a > 1  ->  not a > 1
    m.py:2 constant: 1  ->  0
    m.py:2 constant: 1  ->  2
    m.py:3 removed: g(a)  ->  pass
    """
    lines = list(accumulate((len(line) for line in source.splitlines(keepends=True)), initial=0))
    found = set()
    for node, kind, after in _walk(ast.parse(source), source, lines):
        start, end = _span(node, lines)
        before = source[start:end].decode()
        if after != before:
            found.add(Mutant(path, node.lineno, kind, start, end, before, after))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.kind, mutant.start, mutant.after))


_Fault = tuple[ast.stmt | ast.expr, str, str]


def _walk(node: ast.AST, source: bytes, lines: list[int]) -> Iterator[_Fault]:
    """Find the faults of a node and of all below it, but for what only people and type checkers read."""
    if isinstance(node, ast.Assert) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
        return
    if isinstance(node, ast.JoinedStr | ast.Constant) and not isinstance(
        getattr(node, "value", 0), int | float
    ):
        start, end = _span(node, lines)
        for after in _sql_faults(source[start:end].decode()):
            yield node, "sql", after
        return
    yield from _faults(node)
    for name, value in ast.iter_fields(node):
        if name in _UNCHECKED or (name == "keywords" and isinstance(node, ast.ClassDef)):
            continue
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not is_docstring:
                yield from _walk(child, source, lines)


def _faults(node: ast.AST) -> Iterator[_Fault]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete():
            yield node, "removed", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Continue() | ast.Break():
            yield node, "removed", "pass"
        case ast.Raise() | ast.Return(value=None):
            yield node, "removed", "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield node, "returned", "return None"
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield from _negated(test)
        case ast.comprehension(ifs=tests):
            for test in tests:
                yield from _negated(test)
        case ast.Compare(ops=ops):
            for index, operator in enumerate(ops):
                changed = copy.deepcopy(node)
                changed.ops[index] = _COMPARISONS[type(operator)]()
                yield node, "comparison", ast.unparse(changed)
        case ast.BoolOp(op=operator):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield node, "boolean", f"({ast.unparse(ast.BoolOp(other, node.values))})"
        case ast.Constant(value=bool() as value):
            yield node, "constant", str(not value)
        case ast.Constant(value=int() | float() as value) if abs(value) < _TUNED:
            yield node, "constant", repr(value + 1)
            yield node, "constant", repr(value - 1)
        case ast.BinOp(op=operator) if type(operator) in _ARITHMETIC and not _is_text(node):
            yield (
                node,
                "arithmetic",
                ast.unparse(ast.BinOp(node.left, _ARITHMETIC[type(operator)](), node.right)),
            )
        case ast.Name(id=name) if name in _EXTREMES:
            yield node, "arithmetic", _EXTREMES[name]


def _negated(test: ast.expr) -> Iterator[_Fault]:
    is_other_comparison = isinstance(test, ast.Compare) and not isinstance(test.ops[0], _ORDERINGS)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield test, "condition", f"({ast.unparse(test.operand)})"
    elif not is_other_comparison:
        yield test, "condition", ast.unparse(ast.UnaryOp(ast.Not(), test))


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in ast.walk(node)
    )


def _sql_faults(text: str) -> Iterator[str]:
    if _SQL.search(text):
        for pattern, replacement in _SQL_FAULTS:
            for found in pattern.finditer(text):
                yield text[: found.start()] + found.expand(replacement) + text[found.end() :]


def _span(node: ast.stmt | ast.expr, lines: list[int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else f"{flat[:297]}..."
