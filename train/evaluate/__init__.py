"""What a trained model can do: the published protocols, each with its chance level."""
