"""How to tell it: a run folder and its verdicts as one self-contained HTML page.

Four floors, each of which knows only those above it in this list::

    material.py     what the run folder holds, gathered without ever refusing a damaged one
    series.py …     counts, percentiles, lanes and bands over one time axis: numbers, no drawing
    charts.py …     the same as geometry: paths and positions in percent of the axis
    page.py         the view that the templates in `templates/` fill in; `write_report`
"""
