"""task → **objective**: what a batch's labels mean, its loss and its score."""
