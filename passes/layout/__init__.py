"""Layout: the order in which memory holds a tensor, and transpositions that cancel."""
