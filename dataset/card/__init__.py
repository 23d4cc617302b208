"""The card of a version: its page, in HTML and Markdown, and its Croissant description."""
