"""``rewright view``: one HTML page over what a compile did, which needs nothing else."""
