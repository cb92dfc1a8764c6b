"""The part of a notebook that some of its cells need, statement by statement: what a widget shows is seen without a training."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)


def names(source: str) -> tuple[set[str], set[str]]:
    """(names that a statement binds or fills, names that it takes from elsewhere), at the top level."""
    top = symtable.symtable(source, "cell", "exec")
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {s.get_name() for scope in _scopes(top) for s in scope.get_symbols() if s.is_referenced() and (scope is top or s.is_global())}
    stores = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)]
    return bound | {node.id for node in stores if isinstance(node, ast.Name)}, used - bound


def excerpt(file: Path, calls: Sequence[str]) -> NotebookNode:
    """A notebook, not run: one cell with what the cells with ``calls`` need of those before them, then those cells, in their order.

    Raises:
        ValueError: a call stands in no code cell, or in several.
    """
    book = nbformat.read(file, as_version=4)
    cells = [cell.source for cell in book.cells if cell.cell_type == "code"]
    for call in calls:
        if (count := sum(call in source for source in cells)) != 1:
            raise ValueError(f"{file.name} has {count} code cells with '{call}', not one: change tests/browser/test_widgets.py with it")
    chosen = [i for i, source in enumerate(cells) if any(call in source for call in calls)]
    wanted = {name for i in chosen for name in names(cells[i])[1]}
    kept: list[str] = []
    for source in [cells[i] for i in reversed(range(chosen[-1])) if i not in chosen]:
        for node in reversed(ast.parse(source).body):
            statement = ast.get_source_segment(source, node) or ""
            bound, used = names(statement)
            if bound & wanted:
                kept.insert(0, statement)
                wanted |= used
    sources = ["\n".join(kept), *(cells[i] for i in chosen)]
    return nbformat.v4.new_notebook(metadata=book.metadata, cells=[nbformat.v4.new_code_cell(source) for source in sources])
