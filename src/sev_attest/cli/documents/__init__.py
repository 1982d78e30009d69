"""The types of every JSON document: what ``--json`` prints, and the files that owners keep.

``printer.py`` has the document of each command. ``tools/make_schemas.py`` makes a JSON Schema of
each, and of each file: a class with a field ``schema``. A field is described by the string below
it. No command imports these modules when it runs; mypy holds what is printed to them.
"""
