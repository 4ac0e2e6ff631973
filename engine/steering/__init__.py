"""Models that write and judge with a direction added to their residual stream."""
