"""Reading of what comes from outside: the one place that opens, bounds and parses such files.

`file_bytes` opens files, `json_values` and `yaml_values` parse text, and `failures` turns whatever
a parser raises into the one error that a reader promises. docs/design/0025-untrusted-files.md says
which bounds there are and why.
"""
