"""pretrained network + few images → **your classifier**.

transfer     probe, fine-tune, keep the better one
features     what the head sees, computed once
alike        features to compare photos by, the same for every config
probe        a head on a frozen network, in seconds
frozen_norm  convolution + frozen batch norm → one convolution, still trainable
sift         photos that show what nobody labelled: `python -m training.transfer.sift`
"""
