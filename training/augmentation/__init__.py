"""pixels → **varied images**: what a network sees twice is never twice the same.

augment         the changes that a config names, a whole batch at a time
resample        an affine map of each image: turned, leaned, scaled, shifted
random_augment  RandAugment: colors and bends, drawn anew for each image
"""
