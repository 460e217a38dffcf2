"""Words that the code, its messages and its documents do without, and what to write instead.

The text of flyweight is plain technical English: the standard term of the field, in full words.
Each row of `BANNED` is a private word that readers had to learn, with its replacement.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "flyweight"

# Regular expression, an example of it, and what to write instead. A space stands for any white
# space, also across the line break of a comment.
BANNED = [
    (r"letters?(?!-spacing)", "letter", "error message; of an alphabet: character"),
    (r"told|tells?|telling", "told", "is given, receives; reports, states; distinguishes"),
    (r"story|stories", "story", "report"),
    (r"looks(?! (?:up|like))", "looks at", "reads, inspects, evaluates"),
    (r"judge[sd]?|judging|judgements?", "judged", "evaluator; evaluate, compare, score"),
    (r"houses?", "house", "package"),
    (r"rooms?", "room", "folder, package; of a size: space"),
    (r"doors?", "door", "entry point, interface"),
    (r"cannot be meant|(?:is|are|be) meant", "cannot be meant", "unknown or invalid; is intended"),
    (r"go(?:es)? on|going on|went on|gone on", "goes on", "continues, resumes"),
    (r"pictures?", "picture", "image"),
    (r"what (?:[\w']+ ){1,6}(?:is|are) for", "what a model is for", "its task, its purpose"),
    (r"brought to life", "brought to life", "built"),
    (r"for machines", "for machines", "as JSON, for programs"),
    (r"for people", "for people", "readable"),
    (r"stepped into|traps?", "stepped into", "pitfall"),
    (r"cuts? off|cutting off", "cut off", "interrupted; of numbers and boxes: truncated, clipped"),
    (r"in words", "in words", "as text"),
    (r"anew", "anew", "again, newly"),
    (r"(?:became|becomes?) of", "what became of", "the change of, the result of"),
    (r"says? of", "says of", "predicts for"),
    (r"lean(?:s|t|ing)? on", "leans on", "relies on"),
    (r"mend(?:s|ed|ing)?", "mended", "corrected, repaired"),
    (r"once and for all", "once and for all", "finally"),
    (r"without a word", "without a word", "without a message"),
    (r"utters?|spoken", "spoken", "writes, formatted"),
    (r"thereby|hereby|thereof|hence", "hence", "so, by this"),
    (r"kin", "kin", "variants"),
    (r"said", "said", "given, stated"),
    (r"speaks? (?:of|for)", "speaks for", "describes; is used for"),
    (r"of ours", "of ours", "of flyweight"),
    (r"asked for", "asked for", "requested"),
]

# Spellings that files and command lines of earlier versions have: these stay readable.
CONTRACTS = re.compile(
    r"--[a-z-]*pictures?\b"  # options, beside the new spelling
    r"|[\"'`]pictures?[\"'`]"  # keys of YAML and JSON, columns of results
    r"|prune\.repair_pictures"  # a key of YAML in version 0.1.0
    r"|-by-picture\b"  # the settings of a fast scan in its journal
    r"|\bpictures(?=/)"  # folders of a run; the unit of throughput
    r"|<!-- table: [\s\S]*?<!-- end -->"  # tables that benchmarks wrote
)

# Module docstrings begin with the noun that the module provides, not with one of these.
NO_NOUN = {
    *(
        "what",
        "which",
        "who",
        "whose",
        "how",
        "where",
        "why",
        "when",
        "whether",
        "from",
        "does",
        "is",
    ),
    *(
        "if",
        "going",
        "bringing",
        "seeing",
        "making",
        "find",
        "run",
        "turn",
        "take",
        "fold",
        "cut",
        "fit",
    ),
    *("re-estimate", "repair", "narrow", "one", "two", "it", "for", "trace", "train"),
}


def _pattern(expression):
    words = expression.replace(" ", r"\s+(?:(?:#|//|\*) *)?")
    return re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.IGNORECASE)


ANY = _pattern("|".join(expression for expression, _, _ in BANNED))


def files():
    yield from sorted(SOURCE.rglob("*.py"))
    yield from sorted((SOURCE / "config" / "presets").glob("*.yaml"))
    templates = SOURCE / "report" / "templates"
    yield from sorted(path for path in templates.rglob("*") if path.is_file())
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield ROOT / "benchmarks" / "README.md"
    yield ROOT / "README.md"
    yield ROOT / "CHANGELOG.md"


def found_in(text):
    """Return (line, words) of every banned expression in `text`."""
    text = CONTRACTS.sub(lambda match: re.sub(".", "-", match[0]), text)
    places = ANY.finditer(text)
    return [(text.count("\n", 0, place.start()) + 1, place[0]) for place in places]


def instead(words):
    """Return what to write instead of `words`."""
    return next(right for wrong, _, right in BANNED if _pattern(wrong).fullmatch(words))


def test_texts_use_no_private_words():
    findings = [
        f"{path.relative_to(ROOT)}:{line}: '{words}'; write: {instead(words)}"
        for path in files()
        for line, words in found_in(path.read_text(encoding="utf-8"))
    ]
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(("example", "right"), [row[1:] for row in BANNED])
def test_every_row_is_noticed(example, right):
    ((line, words),) = found_in(f"one\nis {example.upper()} two")
    assert line == 2
    assert words in example.upper()
    assert instead(words) == right


def test_names_comments_and_contracts():
    assert [words for _, words in found_in("def _told_room(Judge): # goes\n    # on")] == [
        "told",
        "room",
        "Judge",
        "goes\n    # on",
    ]
    assert not found_in("customer's folders: --pictures, pictures/0.png, {'pictures': 3}, mushroom")


def test_module_docstrings_begin_with_a_noun():
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = text.split(" ")[0].rstrip(",:").lower()
        if first in NO_NOUN | {""}:
            wrong.append(f"{path.relative_to(SOURCE)}: {text.splitlines()[0]}")
    assert wrong == []
