"""How the world base is trained: joint encoder, autoencoder and U-Net one after another, then one folder of them."""
