"""From tasks to videos, media and transcripts."""
