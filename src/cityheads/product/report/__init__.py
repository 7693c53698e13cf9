"""The report: one HTML file that holds everything it shows and opens without a network.

`page` has the verb and fills ``templates/report.html.j2``; the other modules make what the sections of the page print.
"""
