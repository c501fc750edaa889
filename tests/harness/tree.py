"""The README's tree, made of the modules' own first lines: `make docs` writes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ROOMS = ("studies", "service", "trainer")
TREE = re.compile(r"(?<=```text\n)studies/.*?(?=```)", re.DOTALL)
NO_PYTHON = {
    "studies/catalog": "Ready studies, each validated by a test.",
    "studies/examples": "Training scripts of one's own, in PyTorch and Keras, with their studies.",
    "service/static": "The dashboard's script and style, without a framework.",
    "service/vendor": "plotly.js, its part for plots on axes, as published (docs/decisions/0023).",
    "service/templates": "The dashboard's pages.",
    "service/store/migrations": "Alembic's steps from one version's tables to the next.",
}


def tree() -> str:
    """Returns a line per folder and module of every room, folders last."""
    return "".join(f"{line}\n" for room in ROOMS for line in _lines(ROOT / room, 0))


def write() -> None:
    """Puts the tree into the README."""
    README.write_text(TREE.sub(lambda _: tree(), README.read_text()))


def _lines(folder: Path, depth: int) -> Iterator[str]:
    where = folder.relative_to(ROOT).as_posix()
    said = NO_PYTHON.get(where) or _first_line(folder / "__init__.py")
    yield _line(f"{folder.name}/", said, depth)
    if where in NO_PYTHON:
        return
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield _line(path.name, _first_line(path), depth + 1)
    for child in sorted(folder.iterdir()):
        if (child / "__init__.py").exists() or child.relative_to(ROOT).as_posix() in NO_PYTHON:
            yield from _lines(child, depth + 1)


def _line(name: str, said: str, depth: int) -> str:
    indented = "  " * depth + name
    return f"{indented:22}{said}".rstrip()


def _first_line(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


if __name__ == "__main__":
    write()
