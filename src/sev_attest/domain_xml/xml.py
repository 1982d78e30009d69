"""Untrusted XML: a tree whose elements know their place in the text, and edits of that text.

Only elements, attributes and text are read. A DOCTYPE is refused where it begins, so no entity is
ever declared, expanded or fetched. Size, depth and the number of elements are limited. An element
without a namespace must not have attributes in one: libvirt ignores the namespaces of attributes
and reads the first one of a name, so ``x:type`` could hide ``type`` from it.

An edit replaces a span of the original bytes: comments, layout and quotes around it stay.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple
from xml.parsers import expat

from sev_attest.errors import MalformedInput

MAX_SIZE = 1 << 20
"""Bytes."""
MAX_DEPTH = 64
MAX_ELEMENTS = 20_000
MAX_NAMESPACE = 256
"""Characters of a namespace's name. expat repeats it in the name of each element in it."""
_MAX_NAME = 40
_MAX_INDENT = 256
_ENCODINGS = ("utf-8", "us-ascii")
_STEP = b"  "
# The text is untrusted: the quantifiers are possessive, so no pattern ever backtracks.
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s++|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_TAG = re.compile(rb"""<(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
_TAG_NAME = re.compile(rb"<[^\s/>]++")
_ATTRIBUTE = re.compile(rb"""\s++([^\s=/>]++)\s*+=\s*+("[^"]*+"|'[^']*+')""")
_BLANK = re.compile(rb"[ \t]*+")


def short(name: str) -> str:
    """Return the first 40 characters of a name, for messages."""
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."


class Place(NamedTuple):
    """One step of an element's path.

    ``above`` is the step before it, None for the root. ``which`` counts the elements of the same
    name in one parent from 1; it is 0 for an only one.
    """

    above: "Place | None"
    name: str
    which: int = 0

    def __str__(self) -> str:
        """Return the path from the root, XPath-like: ``/domain/devices/disk[2]``."""
        steps: list[str] = []
        place: Place | None = self
        while place is not None:
            which = f"[{place.which}]" if place.which else ""
            steps.append(short(place.name) + which)
            place = place.above
        return "/".join(["", *reversed(steps)])


class Element(NamedTuple):
    """An element and its place in the text.

    ``name`` is the local name, with the namespace and a blank before it if there is one. ``line``
    counts from 1. ``start``, ``inner``, ``inner_end`` and ``end`` are byte offsets: where its tag
    begins and ends, and where its closing tag begins and ends.
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
        """Its path, XPath-like, with long names shortened."""
        return str(self.place)

    @property
    def children(self) -> "Iterator[Element]":
        """The elements in it, in order."""
        return (part for part in self.content if isinstance(part, Element))

    @property
    def text(self) -> str:
        """Its text and that of the elements in it, as XPath's string() returns."""
        return "".join(part if isinstance(part, str) else part.text for part in self.content)

    def all(self, path: str) -> "list[Element]":
        """Return the elements at a path of names (``os/loader``)."""
        found = [self]
        for name in path.split("/"):
            found = [child for one in found for child in one.children if child.name == name]
        return found

    def find(self, path: str) -> "Element | None":
        """Return the first of :meth:`all`, None if there is none."""
        return next(iter(self.all(path)), None)

    def get(self, name: str) -> str | None:
        """Return the value of an attribute, None if it is missing."""
        return self.attributes.get(name)


class Edit(NamedTuple):
    """Replaces the bytes from ``start`` up to ``end`` by ``text``."""

    start: int
    end: int
    text: bytes

    def touches(self, other: "Edit") -> bool:
        """Return whether the spans of two edits overlap or meet."""
        return self.start <= other.end and other.start <= self.end


def apply(source: bytes, edits: Iterable[Edit]) -> bytes:
    """Return ``source`` after edits that do not touch each other."""
    pieces = []
    at = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces += [source[at : edit.start], edit.text]
        at = edit.end
    return b"".join([*pieces, source[at:]])


class Document(NamedTuple):
    """XML text and its tree. The methods return edits of the text."""

    source: bytes
    root: Element
    newline: bytes

    @classmethod
    def parse(cls, source: bytes, structure: str) -> "Document":
        """Return the document in ``source``, UTF-8 of at most 1 MiB.

        Raises MalformedInput with the line; ``structure`` names the input in it.
        """
        if len(source) > MAX_SIZE:
            raise MalformedInput(structure, "length", f"more than {MAX_SIZE} bytes")
        if b"\0" in source:
            hint = "`iconv -f UTF-16 -t UTF-8` converts UTF-16"
            raise MalformedInput(structure, "encoding", "this is not UTF-8 text", hint=hint)
        newline = b"\r\n" if b"\r\n" in source else b"\n"
        return cls(source, _Reader(source, structure).read(), newline)

    def set_attribute(self, element: Element, name: str, value: str) -> Edit:
        """Return the edit that sets an attribute, or adds it."""
        quote = b"'"
        end = self._name_end(element)
        for found in self._attributes(element):
            quote = found[2][:1]
            end = found.end()
            if found[1] == name.encode():
                return Edit(found.start(2) + 1, end - 1, value.encode())
        return Edit(end, end, b" " + name.encode() + b"=" + quote + value.encode() + quote)

    def rename_attribute(self, element: Element, name: str, new: str) -> Edit:
        """Return the edit that renames an existing attribute."""
        found = self._attribute(element, name)
        return Edit(found.start(1), found.end(1), new.encode())

    def remove_attribute(self, element: Element, name: str) -> Edit:
        """Return the edit that removes an existing attribute."""
        found = self._attribute(element, name)
        return Edit(found.start(), found.end(), b"")

    def set_text(self, element: Element, text: str) -> Edit:
        """Return the edit that replaces an element's content by ``text``."""
        if element.inner == element.end:
            return self._fill(element, text.encode())
        return Edit(element.inner, element.inner_end, text.encode())

    def remove(self, element: Element) -> Edit:
        """Return the edit that removes an element, and its line if nothing else is on it."""
        line = self._line(element)
        own = not self.source[line : element.start].strip(b" \t")
        own = own and self.source[line - 1 : line] == b"\n"
        after = element.end + len(_match(_BLANK, self.source, element.end))
        if not (own and self.source[after : after + 1] in (b"\r", b"\n")):
            return Edit(element.start, element.end, b"")
        line -= 2 if self.source.endswith(b"\r\n", 0, line) else 1
        return Edit(line, element.end, b"")

    def replace(self, element: Element, xml: str) -> Edit:
        """Return the edit that replaces an element by ``xml``."""
        return Edit(element.start, element.end, xml.encode())

    def append(self, parent: Element, xml: str) -> Edit:
        """Return the edit that adds ``xml`` at the end of ``parent``, indented as that is."""
        last = [*parent.children][-1:]
        if last:
            lines = self._lines(xml, self._indent(last[0]))
            return Edit(last[0].end, last[0].end, lines)
        indent = self._indent(parent)
        lines = self._lines(xml, indent + _STEP) + self.newline + indent
        if parent.inner == parent.end:
            return self._fill(parent, lines)
        kept = self.source[parent.inner : parent.inner_end].rstrip()  # comments
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
        """Return the edit that turns ``<a/>`` into ``<a>content</a>``."""
        start = self.source[element.start : element.end - 2].rstrip()
        name = _match(_TAG_NAME, start, 0)[1:]
        return Edit(element.start + len(start), element.end, b">" + content + b"</" + name + b">")

    def _indent(self, element: Element) -> bytes:
        return _match(_BLANK, self.source, self._line(element))

    def _line(self, element: Element) -> int:
        """Return where an element's line begins, or the element itself if that is far before it.

        Many elements may be on one long line; searching it for each would cost quadratic time.
        """
        least = max(element.start - _MAX_INDENT, 0)
        line = self.source.rfind(b"\n", least, element.start) + 1
        return line or (least and element.start)

    def _lines(self, xml: str, indent: bytes) -> bytes:
        return b"".join(self.newline + indent + line.encode() for line in xml.splitlines())


def _match(pattern: re.Pattern[bytes], source: bytes, at: int) -> bytes:
    found = pattern.match(source, at)
    return found[0] if found else b""


class _Open:
    """An element that is being read: an :class:`Element` without its place."""

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
        """The name without its namespace."""
        return self.name.rpartition(" ")[2]

    @property
    def children(self) -> "Iterator[_Open]":
        """The elements in it, in order."""
        return (part for part in self.content if isinstance(part, _Open))

    def closed(self, place: Place) -> Element:
        """Return it and everything in it as an :class:`Element`."""
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
        self._stack = [_Open("", {}, 1, 0)]  # the parent of the root
        self._count = 0
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def read(self) -> Element:
        """Return the root. Raises MalformedInput."""
        try:
            self._scan()
            self._parser.Parse(self._source, True)  # noqa: FBT003 - this is the last part
        except expat.ExpatError as error:
            words = f"column {error.offset + 1}: {expat.ErrorString(error.code)}"
            raise self._malformed("format", words, error.lineno) from None
        finally:
            del self._parser  # a reference cycle, which would keep the tree in memory
        root = next(self._stack[0].children)
        return root.closed(Place(None, root.local))

    def _scan(self) -> None:
        """Raise MalformedInput for input that is expensive to parse.

        It must be refused before: expat goes on parsing after a handler has raised.
        """
        prolog = _match(_PROLOG, self._source, 0)
        if self._source.startswith(b"<!DOCTYPE", len(prolog)):
            self._doctype(line=prolog.count(b"\n") + 1)
        if b"xmlns" in self._source:
            scanner = expat.ParserCreate()
            scanner.StartElementHandler = partial(self._namespaces, scanner)
            scanner.Parse(self._source, True)  # noqa: FBT003 - this is the last part
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
            hint = f"convert it: `iconv -f {named} -t UTF-8`, and name UTF-8 in the first line"
            raise self._malformed("encoding", f"{named}, expected UTF-8", hint=hint)

    def _doctype(self, *_declared: object, line: int | None = None) -> None:
        hint = "libvirt's XML has none: remove it"
        words = "a document type, which may declare entities"
        raise self._malformed("DOCTYPE", words, line, hint=hint)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._stack) > MAX_DEPTH:
            raise self._malformed("depth", f"more than {MAX_DEPTH} nested elements")
        if self._count > MAX_ELEMENTS:
            raise self._malformed("size", f"more than {MAX_ELEMENTS} elements")
        named = [attribute for attribute in attributes if " " in attribute]
        if named and " " not in name:
            local = short(named[0].rpartition(" ")[2])
            hint = "libvirt reads it as an attribute without a namespace: remove it"
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
