"""A compiled program among the things of torch: as a module, as an operator, in torch's formats."""
