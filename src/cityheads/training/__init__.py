"""Training: the task of one step (``task``, ``balancing``, ``meters``), its record, and the verb (``run``).

Imports from ``core``, ``config``, ``model`` and ``dataset``. ``MultiHeadTask`` is also what a
YAML of TerraTorch's command line names.
"""
