"""validation logits → **rules**: from which score a label counts, and how sure it is.

temperature   the one number that makes scores honest
thresholds    by recall, by cost, or by F1 for each label
rules         both, with abstention → the postprocess spec of a bundle
requirements  what was asked for, and what of it the rules grant
"""
