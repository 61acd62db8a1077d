"""Renderings of the result objects: words, HTML, terminal, figures. Nothing here is imported until it is used."""
