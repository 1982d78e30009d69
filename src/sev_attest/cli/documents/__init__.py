"""The types of every JSON document: what ``--json`` prints, and the files that owners keep.

``printer.py`` has the document of each command. ``tools/make_schemas.py`` makes a JSON Schema of
each, and of each file: a class with a field ``schema``. A field is described by the string below
it. Commands do not import these modules when they run, but for evidence, whose reader needs the
types of its file (``cli/evidence/document.py``); mypy holds what is printed to them.
"""
