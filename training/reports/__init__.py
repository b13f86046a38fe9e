"""figures → **what people read**: cards, pages, plots and sheets of mistakes.

evaluation_files  evaluation → JSON with its circumstances, plots, a table
plots             evaluation → pictures
mistakes          evaluation → the worst mistakes on one sheet, all of them by file
fonts             labels → fonts that have their letters
card              manifest + evaluations → card.md
markdown          text → Markdown that shows it as it is
typeset           Markdown of a card → HTML
report            run or bundle → one HTML page
tables            record of a run or an evaluation → tables of that page
"""
