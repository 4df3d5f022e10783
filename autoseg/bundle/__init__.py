"""What a model folder is: its files, opening it, weights, the card, sending it, weights from elsewhere."""
