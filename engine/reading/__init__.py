"""Reading texts: tokens in, window means of every layer's residual stream out."""
