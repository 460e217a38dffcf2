"""Reports of a run: costs, accuracy and latency before and after, with unit and method.

`rows` holds the values; `render` writes them as JSON, Markdown and one offline HTML page. Nothing
in this package measures: every number arrives as a plain value, so the report of any run folder can
be written again.
"""
