"""nine networks on CIFAR-10 → **one table**, each cell measured or marked.

rows      which networks, what each is trained with, how the minutes are shared out
table     times, trains and measures them, and goes on where it stopped
sheet     cells ↔ JSON, and Markdown for people
__main__  `python -m training.cifar10_table`
"""
