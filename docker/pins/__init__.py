"""Moves and shows the pins of the cards. The build itself needs none of this: it reads a card with docker/pin.py."""
