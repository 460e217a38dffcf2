"""The documentation is true: its code runs, its commands parse, its links lead somewhere.

Three marks, HTML comments on the line above a block, say more:

* `<!-- runs -->` above a console block: its `flyweight` commands are run; where the block shows a
  line that begins with `error: `, the command must end with exactly that line and status 2;
* `<!-- prints -->` above a text block: the Python block before it must have printed exactly that;
* `<!-- file: NAME -->`: the block is the content of that file.

In what is shown, `...` stands for anything.
"""

import contextlib
import importlib
import io
import re
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SHELLS = ("console", "bash", "sh")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, the line where the text begins, and its mark."""

    language: str
    text: str
    line: int
    mark: str


def blocks_of(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    opened: tuple[str, int, str] | None = None
    for number, line in enumerate(lines):
        if opened is None and line.startswith("```"):
            above = lines[number - 1] if number else ""
            mark = re.fullmatch(r"<!-- (.+) -->", above.strip())
            opened = (line[3:].strip(), number + 1, mark[1] if mark else "")
        elif opened is not None and line == "```":
            language, first, mark_text = opened
            text = "\n".join(lines[first:number]) + "\n"
            found.append(Block(language, text, first + 1, mark_text))
            opened = None
    assert opened is None, f"{page.name}:{opened} is never closed"
    return found


def commands_in(block: Block) -> list[tuple[str, list[str]]]:
    """Return (command line, the lines shown below it); in bash blocks every line is a command."""
    text = block.text.replace("\\\n", " ")
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if block.language == "console" and not line.startswith("$ "):
            assert found, f"a console block must begin with a command: {line}"
            found[-1][1].append(line)
        elif line.strip() and not line.startswith("#"):
            found.append((line.removeprefix("$ "), []))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name


def agrees(shown: str, printed: str) -> bool:
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def parse(line: str) -> None:
    """Check one `flyweight` command line without running it."""
    from flyweight.cli.app import app
    from flyweight.cli.main import spread_overrides

    root = typer.main.get_command(app)
    name, *rest = spread_overrides(shlex.split(line, comments=True)[1:])
    if name in ("--version", "--help", "-h"):
        return
    assert name in root.commands, f"no command '{name}': {line}"
    if not {"--help", "-h"} & set(rest):
        root.commands[name].make_context(name, rest)


def run(line: str, shown: list[str], place: str) -> None:
    from flyweight.cli.main import run as run_command

    program, *arguments = shlex.split(line, comments=True)
    assert program == "flyweight", f"{place}: only flyweight runs here: {line}"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_command(arguments)
    said = (err.getvalue().strip().splitlines() or [""])[-1]
    error = next((text for text in shown if text.startswith("error: ")), None)
    if error is not None:
        assert status == 2, f"{place}: {line} ended with {status}"
        assert agrees(error, said), f"{place}: shown\n{error}\nsaid\n{said}"
        return
    assert status == 0, f"{place}: {line} ended with {status}: {said}"
    if shown:
        assert agrees("\n".join(shown), out.getvalue()), f"{place}: {line}\n{out.getvalue()}"


def play(page: Path) -> int:
    """Run a page from top to bottom in the current folder; return how many blocks ran."""
    namespace: dict[str, object] = {"__name__": "page"}
    printed, count = "", 0
    for block in blocks_of(page):
        place = f"{name_of(page)}:{block.line}"
        if block.mark.startswith("file: "):
            Path(block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # Empty lines before make a traceback name the page's own line.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            printed, count = out.getvalue(), count + 1
        elif block.mark == "prints":
            assert agrees(block.text, printed), f"{place}: shown\n{block.text}\nprinted\n{printed}"
        elif block.language in SHELLS and block.mark == "runs":
            for line, shown in commands_in(block):
                run(line, shown, place)
            count += 1
    return count


def runnable() -> Iterator[object]:
    for page in PAGES:
        blocks = blocks_of(page) if page.is_file() else []
        if any(block.language == "python" or block.mark == "runs" for block in blocks):
            yield pytest.param(page, id=name_of(page), marks=pytest.mark.slow)


@pytest.mark.parametrize("page", tuple(runnable()))
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        # Users see the libraries' warnings as warnings, too.
        warnings.simplefilter("default")
        assert play(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path) -> None:
    makefile = ROOT / "Makefile"
    targets = re.findall(r"^([\w-]+):", makefile.read_text(), re.MULTILINE)
    for block in blocks_of(page):
        for line, shown in commands_in(block) if block.language in SHELLS else []:
            if line.startswith("flyweight") and not shown:
                parse(line)
            elif line.startswith("make "):
                assert line.split()[1] in targets, f"{name_of(page)}: no target for '{line}'"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_inline_commands_exist(page: Path) -> None:
    from flyweight.cli.app import app

    known = set(typer.main.get_command(app).commands)
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`flyweight ([a-z][\w-]*)", text))
    assert named <= known, f"{name_of(page)} names {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(<?([^)>\s]+)>?\)", text) + re.findall(r'src="([^"]+)"', text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to '{target}'"
        assert ROOT in file.parents or file == ROOT, f"'{target}' leaves the repository"
        if anchor:
            assert anchor in anchors(file), f"{name_of(page)} links to '{target}'"


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_keep_their_length() -> None:
    limits = {ROOT / "README.md": 150}
    limits |= dict.fromkeys((ROOT / "docs" / "design").glob("*.md"), 60)
    assert len(limits) > 8
    for page, limit in limits.items():
        assert len(page.read_text(encoding="utf-8").splitlines()) <= limit, name_of(page)


def test_every_error_is_in_the_catalogue() -> None:
    from flyweight import errors

    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.FlyweightError)
    } - {"FlyweightError"}
    assert anchors(ROOT / "docs" / "errors.md") >= {kind.lower() for kind in kinds}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("tables")


def test_pages_show_the_measured_rows(
    tables: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("demo", "detection_bccd"):
        assert f"<!-- table: {name} -->\n" in text
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


ROW = {
    "benchmark": "tiny",
    "stage": "dense",
    "metric_name": "mAP",
    "metric": "0.5",
    "macs": "2000000",
    "params": "1000",
    "onnx_bytes": "2097152",
    "latency_1_ms": "4.0",
    "latency_1_low_ms": "3.9",
    "latency_1_high_ms": "4.1",
    "pictures": "72",
    "runtime": "onnxruntime 1",
    "date": "2026-01-02T03:04:05+00:00",
    "note": "noisy machine",
}


def test_a_table_is_made_of_rows_and_of_nothing_else(tables: ModuleType, tmp_path: Path) -> None:
    page = "a\n<!-- table: tiny -->\nold\n<!-- end -->\nb\n"
    empty = tables.filled(page, tmp_path)
    assert empty == "a\n<!-- table: tiny -->\n<!-- end -->\nb\n"
    pruned = {"stage": "pruned", "latency_1_ms": "2.0", "metric": "0.45"}
    pruned |= {"latency_1_low_ms": "1.9", "latency_1_high_ms": "2.1"}
    lines = [",".join(tables.COLUMNS)]
    lines += [",".join(row.get(key, "") for key in tables.COLUMNS) for row in (ROW, ROW | pruned)]
    (tmp_path / "tiny.csv").write_text("\n".join(lines) + "\n")
    text = tables.filled(page, tmp_path)
    assert tables.filled(text, tmp_path) == text
    latency = next(line for line in text.splitlines() if "1 thread" in line)
    assert "2.00" in latency
    assert "faster" in latency
    assert "5.0 points" in text
    assert "2 threads" not in text
    assert "72 images" in text
    assert "noisy machine" in text


def test_check_compares_and_leaves_the_page(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- table: tiny -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(tables, "PAGES", {page: "benchmarks/results"})
    assert tables.main(["--check"]) == 1
    assert "old" in page.read_text()
    assert tables.main([]) == 0
    assert tables.main(["--check"]) == 0
    assert "old" not in page.read_text()


def test_a_results_file_of_other_columns_is_refused(tables: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("benchmark,stage\n")
    with pytest.raises(ValueError, match="must have the columns"):
        tables.read_rows(tmp_path / "other.csv")


def test_rows_take_the_place_of_earlier_ones(tables: ModuleType, tmp_path: Path) -> None:
    detection = importlib.import_module("detection")
    path = tmp_path / "tiny.csv"
    detection.write_rows(path, [ROW, ROW | {"stage": "pruned"}])
    detection.write_rows(path, [ROW | {"metric": "0.75"}])
    rows = {row["stage"]: row for row in tables.read_rows(path)}
    assert list(rows) == ["pruned", "dense"]
    assert rows["dense"]["metric"] == "0.75"
    assert rows["pruned"]["metric"] == "0.5"


def test_the_marks_catch_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:7"):
        play(page)
    shown = "$ flyweight train -c nothing\nerror: All is well."
    page.write_text(f"<!-- runs -->\n```console\n{shown}\n```\n")
    with pytest.raises(AssertionError, match="A config must be"):
        play(page)
    with pytest.raises(AssertionError, match="no command"):
        parse("flyweight sensitivities")
