"""Emotion in any text: token by token, along the emotion vectors of a cell that was extracted."""
