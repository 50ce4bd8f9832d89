"""The Torch backend: runs every op, as generated Python or compiled by Inductor."""
