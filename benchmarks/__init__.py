"""What emovec costs, against what else one could use."""
