"""The architecture, held: import contracts, budgets of lines, who reads the environment."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("studies", "service", "trainer")
FILE_LINES = 330  # "about 300"
FUNCTION_LINES = 45  # "about 40", without the docstring
# Who may look at the process environment, and why.
READS_ENVIRONMENT = {
    "service/settings.py": "the settings of a server",
    "studies/cores.py": "how many threads somebody has asked for",
    "studies/files.py": "where lmtune's own folder is",
    "studies/http.py": "address and token, for the command and for workers",
    "studies/script.py": "what a worker tells the script that it runs",
}
PASSES_ENVIRONMENT_ON = ("service/launcher/", "trainer/", "studies/cli")


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_the_import_contracts_of_pyproject_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_outgrows_its_budget() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    lengths = {relative(p): len(p.read_text().splitlines()) for p in [*sources(), *tests]}
    assert {path: n for path, n in lengths.items() if n > FILE_LINES} == {}


def test_no_function_outgrows_its_budget() -> None:
    long = {
        f"{relative(path)}:{function.name}": body_lines(function)
        for path in sources()
        if "migrations/versions" not in relative(path)  # one list of tables, frozen once released
        for function in functions(ast.parse(path.read_text()))
        if body_lines(function) > FUNCTION_LINES
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        relative(path)
        for path in sources()
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_only_named_modules_read_the_environment() -> None:
    readers = {
        relative(path)
        for path in sources()
        if re.search(r"\bos\.(environ|getenv)", path.read_text())
    }
    others = {path for path in readers if not path.startswith(PASSES_ENVIRONMENT_ON)}
    assert others - READS_ENVIRONMENT.keys() == set()


@pytest.mark.parametrize("word", ["pickle", "torch.load", "joblib", "yaml.unsafe_load", "eval("])
def test_nothing_is_ever_unpickled_or_evaluated(word: str) -> None:
    call = re.compile(rf"(?<![\w.]){re.escape(word)}")
    code = {relative(p): re.sub(r'""".*?"""|#.*', "", p.read_text(), flags=re.S) for p in sources()}
    assert [path for path, text in code.items() if call.search(text)] == []
