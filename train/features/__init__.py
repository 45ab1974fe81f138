"""Videos as frozen models see them: rows of numbers along the time of a video, computed once and stored."""
