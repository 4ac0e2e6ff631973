"""Everything that runs a model: the command line, the plan, generation and extraction."""
