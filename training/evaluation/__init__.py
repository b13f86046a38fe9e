"""predictions + truth → **figures**: how good a model is, and how sure.

metrics      accuracy, average precision, F1, confusable labels
answers      what top-1, top-5 and groups need of each image, once
reliability  does 0.8 mean right in 8 cases of 10?
intervals    between which values a figure may lie
selective    when to abstain: fewer answers, fewer wrong ones
figures      logits → every figure that a task knows
evaluate     bundle + split → its figures, measured as it is served
labelled     path + bundle → a split as that bundle's task sees it
measure      a run → its test split, once, on the graph that would be served
"""
