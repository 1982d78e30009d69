"""The types of every JSON document: what ``--json`` prints, and the files that owners keep.

``tools/make_schemas.py`` writes a JSON Schema for each class with a field ``schema``. A field is
described by the string below it. No command imports these modules when it runs; mypy reads them.

A class with a field ``ok`` is a command's document; its schema is named after the command. Any
other is a file; its schema is named after the class. If there is no class for a command's
failures, they are :class:`~sev_attest.cli.documents.parts.Failed`.
"""
