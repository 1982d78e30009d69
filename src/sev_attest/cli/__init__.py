"""The command line: one file per command, which collects inputs, calls the library and renders."""
