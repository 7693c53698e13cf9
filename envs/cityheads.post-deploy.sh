#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the folder that holds the Snakefile.
set -euo pipefail
pip install --no-deps --editable .
