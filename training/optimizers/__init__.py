"""gradients → **new weights**: who moves which parameters, and how far.

optimizers  each parameter in the hands of exactly one
muon        momentum with its singular values made equal
schedule    progress → what the peak rate is multiplied with
ema         the moving average of the weights, and Lookahead
"""
