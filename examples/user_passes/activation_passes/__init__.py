"""Two passes for Rewright: one made of rules, one written by hand."""
