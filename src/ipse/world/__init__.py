"""People who do not exist, with the truth about them."""
