"""A stranger's XML: a tree whose parts know where they stand, and edits of the text itself.

Only elements, attributes and text are read. A DOCTYPE is refused where it begins, so that no entity
is ever declared, expanded or fetched; size, depth and the number of elements are bounded. Where an
element has no namespace its attributes must have none: libvirt passes over namespaces of attributes
and takes the first of a name, so that ``x:type`` could hide ``type`` from it. An edit
replaces a span of the original bytes: comments, layout and quotes around it stay as they were.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from xml.parsers import expat

from sev_attest.errors import MalformedInput

MAX_SIZE = 1 << 20
MAX_DEPTH = 64
MAX_ELEMENTS = 20_000
MAX_NAMESPACE = 256
"""Characters of a namespace's name, which expat repeats in the name of all that is in it."""
_MOST_NAME = 40
_MOST_INDENT = 256
_ENCODINGS = ("utf-8", "us-ascii")
_STEP = b"  "
# Every pattern is matched where it must begin, and gives nothing back: the text is a stranger's.
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s++|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_TAG = re.compile(rb"""<(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
_TAG_NAME = re.compile(rb"<[^\s/>]++")
_ATTRIBUTE = re.compile(rb"""\s++([^\s=/>]++)\s*+=\s*+("[^"]*+"|'[^']*+')""")
_BLANK = re.compile(rb"[ \t]*+")


def short(name: str) -> str:
    """Return a name as it is shown: its first 40 characters."""
    return name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}..."


@dataclass(frozen=True, slots=True)
class Place:
    """A step of the way to an element.

    ``which`` counts the elements of one name in one other from 1; it is 0 where there is just one.
    """

    above: "Place | None"
    name: str
    which: int = 0

    def __str__(self) -> str:
        """Return the way from the root, XPath-like: ``/domain/devices/disk[2]``."""
        steps: list[str] = []
        place: Place | None = self
        while place is not None:
            which = f"[{place.which}]" if place.which else ""
            steps.append(short(place.name) + which)
            place = place.above
        return "/".join(["", *reversed(steps)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Element:
    """An element and where it stands.

    ``name`` is the local one; one in a namespace has that and a blank before it. ``line`` counts
    from 1. ``start``, ``inner``, ``inner_end`` and ``end`` are offsets in bytes: of its tag,
    of what follows that, of its closing tag, and of what follows that.
    """

    name: str
    attributes: Mapping[str, str]
    content: "tuple[str | Element, ...]"
    place: Place
    line: int
    start: int
    inner: int
    inner_end: int
    end: int

    @property
    def path(self) -> str:
        """Return where it stands, XPath-like, with long names cut short."""
        return str(self.place)

    @property
    def children(self) -> "Iterator[Element]":
        """Give the elements in it, in order."""
        return (part for part in self.content if isinstance(part, Element))

    @property
    def text(self) -> str:
        """Give all its text, as XPath's string() does: also that of the elements in it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.content)

    def all(self, path: str) -> "list[Element]":
        """List the elements that a path of names (``os/loader``) leads to."""
        found = [self]
        for name in path.split("/"):
            found = [child for one in found for child in one.children if child.name == name]
        return found

    def find(self, path: str) -> "Element | None":
        """Give the first of :meth:`all`, if there is one."""
        return next(iter(self.all(path)), None)

    def get(self, name: str) -> str | None:
        """Give the value of an attribute."""
        return self.attributes.get(name)


@dataclass(frozen=True, slots=True)
class Edit:
    """Put ``text`` in the place of the bytes from ``start`` to ``end``."""

    start: int
    end: int
    text: bytes

    def touches(self, other: "Edit") -> bool:
        """Tell whether both change the same place."""
        return self.start <= other.end and other.start <= self.end


def apply(source: bytes, edits: Iterable[Edit]) -> bytes:
    """Carry out edits that do not touch each other."""
    pieces = []
    at = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces += [source[at : edit.start], edit.text]
        at = edit.end
    return b"".join([*pieces, source[at:]])


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """XML text and its tree."""

    source: bytes
    root: Element
    newline: bytes

    @classmethod
    def parse(cls, source: bytes, structure: str) -> "Document":
        """Read a document of 1 MiB at most, in UTF-8; raises MalformedInput that says where."""
        if len(source) > MAX_SIZE:
            raise MalformedInput(structure, "length", f"more than {MAX_SIZE} bytes")
        if b"\0" in source:
            hint = "`iconv -f UTF-16 -t UTF-8` rewrites what is in UTF-16"
            raise MalformedInput(structure, "encoding", "this is no UTF-8 text", hint=hint)
        newline = b"\r\n" if b"\r\n" in source else b"\n"
        return cls(source, _Reader(source, structure).read(), newline)

    def set_attribute(self, element: Element, name: str, value: str) -> Edit:
        """Give an attribute another value, or add it."""
        quote = b"'"
        end = self._name_end(element)
        for found in self._attributes(element):
            quote = found[2][:1]
            end = found.end()
            if found[1] == name.encode():
                return Edit(found.start(2) + 1, end - 1, value.encode())
        return Edit(end, end, b" " + name.encode() + b"=" + quote + value.encode() + quote)

    def rename_attribute(self, element: Element, name: str, new: str) -> Edit:
        """Call an attribute that is there by another name."""
        found = self._attribute(element, name)
        return Edit(found.start(1), found.end(1), new.encode())

    def remove_attribute(self, element: Element, name: str) -> Edit:
        """Take out an attribute that is there."""
        found = self._attribute(element, name)
        return Edit(found.start(), found.end(), b"")

    def set_text(self, element: Element, text: str) -> Edit:
        """Put ``text`` in the place of all that is in an element."""
        if element.inner == element.end:
            return self._fill(element, text.encode())
        return Edit(element.inner, element.inner_end, text.encode())

    def remove(self, element: Element) -> Edit:
        """Take out an element, and its line if nothing else is on it."""
        line = self._line(element)
        own = not self.source[line : element.start].strip(b" \t")
        own = own and self.source[line - 1 : line] == b"\n"
        after = element.end + len(_match(_BLANK, self.source, element.end))
        if not (own and self.source[after : after + 1] in (b"\r", b"\n")):
            return Edit(element.start, element.end, b"")
        line -= 2 if self.source.endswith(b"\r\n", 0, line) else 1
        return Edit(line, element.end, b"")

    def replace(self, element: Element, xml: str) -> Edit:
        """Put ``xml`` in the place of an element."""
        return Edit(element.start, element.end, xml.encode())

    def append(self, parent: Element, xml: str) -> Edit:
        """Add ``xml`` (lines, indented as they are to each other) as the last in ``parent``."""
        last = [*parent.children][-1:]
        if last:
            lines = self._lines(xml, self._indent(last[0]))
            return Edit(last[0].end, last[0].end, lines)
        indent = self._indent(parent)
        lines = self._lines(xml, indent + _STEP) + self.newline + indent
        if parent.inner == parent.end:
            return self._fill(parent, lines)
        kept = self.source[parent.inner : parent.inner_end].rstrip()  # a comment, say
        return Edit(parent.inner + len(kept), parent.inner_end, lines)

    def _attribute(self, element: Element, name: str) -> "re.Match[bytes]":
        found = self._attributes(element)
        return next(match for match in found if match[1] == name.encode())

    def _attributes(self, element: Element) -> "Iterator[re.Match[bytes]]":
        at = self._name_end(element)
        while found := _ATTRIBUTE.match(self.source, at, element.inner):
            yield found
            at = found.end()

    def _name_end(self, element: Element) -> int:
        return element.start + len(_match(_TAG_NAME, self.source, element.start))

    def _fill(self, element: Element, content: bytes) -> Edit:
        """Put something into ``<an-empty-element/>``."""
        start = self.source[element.start : element.end - 2].rstrip()
        name = _match(_TAG_NAME, start, 0)[1:]
        return Edit(element.start + len(start), element.end, b">" + content + b"</" + name + b">")

    def _indent(self, element: Element) -> bytes:
        return _match(_BLANK, self.source, self._line(element))

    def _line(self, element: Element) -> int:
        """Find where an element's line begins; the element itself if that is far off.

        Many elements may be on one long line: none of them may cost all of it.
        """
        least = max(element.start - _MOST_INDENT, 0)
        line = self.source.rfind(b"\n", least, element.start) + 1
        return line or (least and element.start)

    def _lines(self, xml: str, indent: bytes) -> bytes:
        return b"".join(self.newline + indent + line.encode() for line in xml.splitlines())


def _match(pattern: re.Pattern[bytes], source: bytes, at: int) -> bytes:
    found = pattern.match(source, at)
    return found[0] if found else b""


class _Open:
    """An element that is being read."""

    __slots__ = ("attributes", "content", "end", "inner", "inner_end", "line", "name", "start")

    def __init__(self, name: str, attributes: dict[str, str], line: int, start: int) -> None:
        self.name = name
        self.attributes = attributes
        self.content: list[str | _Open] = []
        self.line = line
        self.start = start
        self.inner = self.inner_end = self.end = start

    @property
    def local(self) -> str:
        """Give the name without its namespace."""
        return self.name.rpartition(" ")[2]

    @property
    def children(self) -> "Iterator[_Open]":
        """Give the elements in it, in order."""
        return (part for part in self.content if isinstance(part, _Open))

    def closed(self, place: Place) -> Element:
        """Freeze it and all that is in it."""
        count = Counter(child.local for child in self.children)
        seen: Counter[str] = Counter()
        content: list[str | Element] = []
        for part in self.content:
            if isinstance(part, str):
                content.append(part)
                continue
            seen[part.local] += 1
            which = seen[part.local] if count[part.local] > 1 else 0
            content.append(part.closed(Place(place, part.local, which)))
        return Element(
            name=self.name,
            attributes=self.attributes,
            content=tuple(content),
            place=place,
            line=self.line,
            start=self.start,
            inner=self.inner,
            inner_end=self.inner_end,
            end=self.end,
        )


class _Reader:
    """One run of expat over one document."""

    def __init__(self, source: bytes, structure: str) -> None:
        self._source = source
        self._structure = structure
        self._stack = [_Open("", {}, 1, 0)]  # what the root is in
        self._count = 0
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def read(self) -> Element:
        """Give the root; raises MalformedInput."""
        try:
            self._scan()
            self._parser.Parse(self._source, True)  # noqa: FBT003 - this is all of it
        except expat.ExpatError as error:
            words = f"column {error.offset + 1}: {expat.ErrorString(error.code)}"
            raise self._malformed("format", words, error.lineno) from None
        finally:
            del self._parser  # it holds this reader, and that all of the tree
        root = next(self._stack[0].children)
        return root.closed(Place(None, root.local))

    def _scan(self) -> None:
        """Refuse what makes expat do much for little: it parses on after a handler has raised."""
        prolog = _match(_PROLOG, self._source, 0)
        if self._source.startswith(b"<!DOCTYPE", len(prolog)):
            self._doctype(line=prolog.count(b"\n") + 1)
        if b"xmlns" in self._source:
            scanner = expat.ParserCreate()
            scanner.StartElementHandler = partial(self._namespaces, scanner)
            scanner.Parse(self._source, True)  # noqa: FBT003 - likewise
            scanner.StartElementHandler = None

    def _namespaces(
        self, scanner: expat.XMLParserType, name: str, attributes: dict[str, str]
    ) -> None:
        for attribute, value in attributes.items():
            if attribute.partition(":")[0] == "xmlns" and len(value) > MAX_NAMESPACE:
                words = f"more than {MAX_NAMESPACE} characters, on <{short(name)}>"
                raise self._malformed("namespace", words, scanner.CurrentLineNumber)

    def _malformed(
        self, field: str, reason: str, line: int | None = None, *, hint: str = ""
    ) -> MalformedInput:
        line = line or self._parser.CurrentLineNumber
        return MalformedInput(self._structure, field, f"line {line}: {reason}", hint=hint)

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() not in _ENCODINGS:
            named = short(encoding)
            hint = f"rewrite it: `iconv -f {named} -t UTF-8`, and say so in the first line"
            raise self._malformed("encoding", f"{named}, expected UTF-8", hint=hint)

    def _doctype(self, *_declared: object, line: int | None = None) -> None:
        hint = "libvirt's XML has none: take it out"
        words = "a document type, which may declare entities"
        raise self._malformed("DOCTYPE", words, line, hint=hint)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._stack) > MAX_DEPTH:
            raise self._malformed("depth", f"more than {MAX_DEPTH} elements within each other")
        if self._count > MAX_ELEMENTS:
            raise self._malformed("size", f"more than {MAX_ELEMENTS} elements")
        named = [attribute for attribute in attributes if " " in attribute]
        if named and " " not in name:
            local = short(named[0].rpartition(" ")[2])
            hint = "libvirt reads it as one without: take it out"
            words = f"{local} in a namespace, on <{short(name)}>"
            raise self._malformed("attribute", words, hint=hint)
        at = self._parser.CurrentByteIndex
        opened = _Open(name, attributes, self._parser.CurrentLineNumber, at)
        opened.inner = at + len(_match(_TAG, self._source, at))
        self._stack[-1].content.append(opened)
        self._stack.append(opened)

    def _end(self, _name: str) -> None:
        opened = self._stack.pop()
        opened.inner_end = opened.end = opened.inner
        if not self._source.endswith(b"/>", opened.start, opened.inner):
            opened.inner_end = self._parser.CurrentByteIndex
            opened.end = self._source.index(b">", opened.inner_end) + 1

    def _text(self, data: str) -> None:
        self._stack[-1].content.append(data)
