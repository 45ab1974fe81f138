"""From samples to models: data, models, objectives, the loop, the launcher and evaluation."""
