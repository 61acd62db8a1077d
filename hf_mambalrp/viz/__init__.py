"""A document and its writers: HTML, a terminal, Markdown, figures. Nothing here knows a result."""
