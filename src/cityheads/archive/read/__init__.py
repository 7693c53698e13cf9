"""The chosen items onto a parent's grid: one module for each kind of layer, and the verb (`parent`)."""
