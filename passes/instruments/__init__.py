"""What watches a pipeline run: each a small class over one protocol."""
