"""The report: one HTML file that holds everything it shows and opens without a network.

`page` has the verb and fills ``templates/report/page.html.j2``; the other modules make what the sections of the page
print. Nothing on the page is scaled down on a narrow screen: charts are HTML or as wide as a phone, and tables become
cards.
"""
