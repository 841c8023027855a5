"""What the attacks that plant a layer have in common: the code of the images, the crafting, the reading, the trying."""
