"""The product: the bundle with its card, what it says about a point or a parent, the figures and the report.

Everything here reads finished artifacts (`results`) and writes what people look at or take away; pages are filled from
``templates/`` (`render`). May import all other folders; only the command line imports it.
"""
