"""Parser of one VOC annotation file, without a tree and without expansion of entities."""

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from flyweight.errors import DataError
from flyweight.untrusted.failures import LimitError, refusing
from flyweight.untrusted.file_bytes import read_bytes

_ROOT = ("annotation",)
_OBJECT = ("annotation", "object")
_SIZE = ("annotation", "size")
_BOX = ("annotation", "object", "bndbox")
_MOST_DEPTH = 50  # Elements within each other; annotations have five.


class AnnotationError(DataError):
    """An annotation that cannot be read at all.

    Attributes:
        line: Line at which parsing stopped; None if the file was not parsed.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Object:
    """One `<object>`: the line it starts on, and the text of its fields.

    `text` holds fields such as `name` and `difficult`, and the corners in `<bndbox>`, but not the
    fields of `<part>`.
    """

    line: int
    text: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """One file. Height and width are in pixels, 0 if the file has none."""

    height: int
    width: int
    objects: tuple[Object, ...]


def read_annotation(path: Path) -> Annotation:
    """Read a VOC annotation.

    Raises:
        AnnotationError: The file cannot be read, is not well-formed XML, is no `<annotation>`, or
            declares entities.
    """
    with refusing(AnnotationError, "An annotation must be a readable file.", "one", "Restore it."):
        data = read_bytes(path)
    return parse_annotation(data)


def parse_annotation(data: bytes) -> Annotation:
    """Parse the bytes of a VOC annotation.

    Raises:
        AnnotationError: As for `read_annotation`, except for unreadable files.

    Example:
        >>> parse_annotation(b"<annotation><size><width>4</width></size></annotation>")
        Annotation(height=0, width=4, objects=())
    """
    handler = _Handler()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.characters
    parser.EntityDeclHandler = handler.refuse_entity
    handler.parser = parser
    try:
        with refusing(
            AnnotationError, "An annotation must be well-formed XML.", "", "Write it again."
        ):
            parser.Parse(data, True)
    except AnnotationError as error:
        error.line = parser.CurrentLineNumber if error.line is None else error.line
        raise
    if not handler.is_annotation:
        raise AnnotationError(
            "A VOC annotation must have <annotation> as its root. "
            f"Received <{handler.root}>. Check which files the list names."
        )
    height, width = (_side(handler.size.get(side)) for side in ("height", "width"))
    return Annotation(height, width, tuple(handler.objects))


class _Handler:
    """Collects the known fields while expat parses the file."""

    def __init__(self) -> None:
        self.parser: expat.XMLParserType | None = None
        self.root = ""
        self.is_annotation = False
        self.size: dict[str, str] = {}
        self.objects: list[Object] = []
        self._path: list[str] = []
        self._text = ""

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        if not self._path:
            self.root = name
            self.is_annotation = (name,) == _ROOT
        if len(self._path) >= _MOST_DEPTH:
            raise LimitError(f"it nests deeper than the {_MOST_DEPTH} levels that are read")
        self._path.append(name)
        self._text = ""
        if tuple(self._path) == _OBJECT and self.parser is not None:
            self.objects.append(Object(self.parser.CurrentLineNumber))

    def characters(self, text: str) -> None:
        self._text += text

    def end(self, name: str) -> None:
        self._path.pop()
        parent = tuple(self._path)
        if parent == _SIZE:
            self.size[name] = self._text.strip()
        elif parent in (_OBJECT, _BOX):
            self.objects[-1].text[name] = self._text.strip()
        self._text = ""

    def refuse_entity(self, name: str, *_definition: object) -> None:
        raise AnnotationError(
            f"An annotation must not declare entities. Received '{name}'. Write its text out.",
            self.parser.CurrentLineNumber if self.parser is not None else None,
        )


def _side(text: str | None) -> int:
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0
