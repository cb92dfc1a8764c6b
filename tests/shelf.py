"""Sources of installed libraries, read and never imported: where a name comes from, what a class has, what a call may pass.

A version can so be looked at beside another one, without its own dependencies.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Found(NamedTuple):
    """A definition, and the module that holds it."""

    module: str
    node: Any  # of the syntax tree


def words(node: ast.AST) -> set[str]:
    """Every name, attribute, parameter, keyword and short string below a node."""
    found = set()
    for part in ast.walk(node):
        for field in ("id", "attr", "arg", "name", "value"):
            if isinstance(word := getattr(part, field, None), str):
                found.add(word)
    return found


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module or class, also those below ``if`` and ``try``, the later ones first."""
    for node in reversed(body):
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from statements([*node.body, *node.orelse, *(s for h in getattr(node, "handlers", []) for s in h.body)])


def targets(node: ast.stmt) -> set[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.ClassDef | Function):
        return {node.name}
    left = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {part.id for target in left for part in ast.walk(target) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


@functools.cache
def parsed(file: Path) -> list[ast.stmt]:
    """The statements of a file; once, for several shelves may hold it."""
    return list(statements(ast.parse(file.read_bytes()).body))


class Shelf:
    """The libraries in some folders; a file is taken from the first folder that has it."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.file, self.tree, self.text = map(functools.cache, (self._file, self._tree, self._text))
        self.find, self.line, self.members = map(functools.cache, (self._find, self._line, self._members))

    def version(self, library: str) -> str:
        """As its dist-info says."""
        found = [info for folder in self.folders for info in folder.glob(f"{library}-*.dist-info")]
        return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else "(no version)"

    def _file(self, module: str) -> Path | None:
        place = Path(*module.split("."))
        tries = (folder / name for folder in self.folders for name in (place / "__init__.py", place.with_suffix(".py")))
        return next((file for file in tries if file.is_file()), None)

    def _tree(self, module: str) -> list[ast.stmt]:
        return parsed(file) if (file := self.file(module)) else []

    def _text(self, module: str) -> str:
        """The text of a module, of a package with all its files."""
        if (file := self.file(module)) is None:
            return ""
        files = file.parent.rglob("*.py") if file.name == "__init__.py" else [file]
        return "\n".join(part.read_text(encoding="utf-8") for part in files)

    def _find(self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> Found | None:
        """The class, function, variable or submodule of that name in a module, through whatever imports it there."""
        if (module, name) in seen or (file := self.file(module)) is None:
            return None
        seen |= {(module, name)}
        stars = []
        for node in self.tree(module):
            if name in targets(node):
                return Found(module, node)
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if (alias.asname or alias.name.partition(".")[0]) == name:
                        return Found(alias.name if alias.asname else name, ast.Module([], []))
            elif isinstance(node, ast.ImportFrom):
                package = module if file.name == "__init__.py" else module.rpartition(".")[0]
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                for alias in node.names:
                    if alias.name == "*":
                        stars.append(source)
                    elif (alias.asname or alias.name) == name and (found := self._find(source, alias.name, seen)):
                        return found
        for source in stars:
            if any(f"\n{kind}{name}" in self.text(source) for kind in ("class ", "def ", "")) and (found := self._find(source, name, seen)):
                return found
        return Found(f"{module}.{name}", ast.Module([], [])) if self.file(f"{module}.{name}") else None

    def named(self, dotted: str) -> Found | None:
        """A definition by its dotted name: module, then name, then member of a class."""
        parts = dotted.split(".")
        depth = next((n for n in range(len(parts) - 1, 0, -1) if self.file(".".join(parts[:n]))), 0)
        found = self.find(".".join(parts[:depth]), parts[depth]) if depth else None
        for name in parts[depth + 1 :]:
            found = self.member(found, name) if found else None
        return found

    def _line(self, cls: Found) -> list[Found]:
        """A class and those it stands on, nearest first, as far as the folders hold them."""
        if not isinstance(cls.node, ast.ClassDef):
            return []
        found = [cls]
        for base in cls.node.bases:
            names = ast.unparse(base).partition("[")[0].split(".")  # Generic[T] stands on Generic
            parent = self.find(cls.module, names[0])
            for name in names[1:]:
                parent = self.find(parent.module, name) if parent else None
            found += self.line(parent) if parent and parent.node is not cls.node else []
        return found

    def _members(self, cls: Found) -> dict[str, Any]:
        stored = (n for n in ast.walk(cls.node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
        return {n.attr: n for n in stored} | {name: node for node in statements(cls.node.body) for name in targets(node)}

    def member(self, cls: Found, name: str) -> Found | None:
        """A method, class variable or attribute that a class or its bases define."""
        return next((Found(part.module, self.members(part)[name]) for part in self.line(cls) if name in self.members(part)), None)

    def signature(self, found: Found, bound: bool = True) -> inspect.Signature | None:
        """What a call may pass to a function, a method (``bound``: without self) or a class; None: nobody knows."""
        if isinstance(found.node, ast.ClassDef):
            return self._of_class(found)
        if not isinstance(found.node, Function):
            return None
        arguments, kind = found.node.args, inspect.Parameter
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = [kind.empty] * (len(positional) - len(arguments.defaults)) + [None] * len(arguments.defaults)
        parameters = [kind(a.arg, kind.POSITIONAL_OR_KEYWORD, default=d) for a, d in zip(positional, defaults, strict=True)]
        if bound and parameters and parameters[0].name in ("self", "cls"):
            del parameters[0]
        if arguments.vararg:
            parameters.append(kind(arguments.vararg.arg, kind.VAR_POSITIONAL))
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            parameters.append(kind(a.arg, kind.KEYWORD_ONLY, default=kind.empty if default is None else None))
        if arguments.kwarg:
            parameters.append(kind(arguments.kwarg.arg, kind.VAR_KEYWORD))
        return inspect.Signature(parameters)

    def _of_class(self, cls: Found) -> inspect.Signature | None:
        fields: dict[str, None] = {}
        for part in self.line(cls):
            own = next((n for n in part.node.body if isinstance(n, Function) and n.name == "__init__"), None)
            if own and not fields:
                return self.signature(Found(part.module, own))
            if any("dataclass" in (d := ast.unparse(mark)) or d.startswith("strict") for mark in part.node.decorator_list):
                given = [n for n in part.node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
                fields |= {ast.unparse(n.target): None for n in given if not (n.value and "init=False" in ast.unparse(n.value))}
        kind = inspect.Parameter
        return inspect.Signature([kind(name, kind.POSITIONAL_OR_KEYWORD, default=None) for name in fields]) if fields else None
