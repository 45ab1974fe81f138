"""From transcripts and captions to narrations with times, scores and reasons."""
