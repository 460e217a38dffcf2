"""What was gained and what was lost, in numbers that carry their unit, method and environment.

`rows` holds the values, `render` turns them into JSON, Markdown and one offline HTML page. Nothing
here measures: whatever is shown arrives as plain values, so any run folder can be shown again.
"""
