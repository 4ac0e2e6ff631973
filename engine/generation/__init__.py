"""Writing corpora: what is asked, how replies are split and checked, and vLLM that answers."""
