"""Training: the recipe of `pocket`, stage by stage."""
