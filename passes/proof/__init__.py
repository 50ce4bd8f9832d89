"""Self-proof: rules and implementations checked on examples that are made from what they state."""
