"""The figures of the report: one module for each, `style` and `sheet` for what they share, `draw` for the verb.

A figure's module turns `evidence.Evidence` (results and settings) into a `sheet.Drawing`: a matplotlib figure with its
title, caption and description. Only `draw` writes files.
"""
