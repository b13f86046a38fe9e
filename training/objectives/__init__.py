"""task → **objective**: what a batch's labels mean, its loss and its score.

objective  the four tasks, and what is asked of each
losses     logits + truth → one number
imbalance  what rare labels ask for: weights, shifts and a first guess
"""
