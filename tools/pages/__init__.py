"""Renderers of generated pages, for the commands in `tools/`: they draw what is measured and judged elsewhere."""
