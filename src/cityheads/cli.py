"""The command line: one verb per workflow rule, and a few for people (`cityheads.verbs`).

This module stays light (no torch, rasterio, geopandas): a verb's code is imported when the verb runs.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityheads.core.errors import CityHeadsError
from cityheads.core.redaction import scrub
from cityheads.verbs import VERBS

if TYPE_CHECKING:
    from cityheads.config import Config

__all__ = ["main"]

log = logging.getLogger("cityheads")


def _parser() -> argparse.ArgumentParser:
    from cityheads.core.version import VERSION

    parser = argparse.ArgumentParser(
        prog="cityheads",
        description="One geospatial foundation model, many maps of a city. Each rule of the workflow is one verb.",
    )
    parser.add_argument("--version", action="version", version=f"cityheads {VERSION}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS.values():
        sub = verbs.add_parser(verb.name, help=verb.help, description=f"{verb.help[0].upper()}{verb.help[1:]}.")
        if verb.sections:
            sub.add_argument("--config", type=Path, required=True, metavar="YAML", help="config file")
        sub.add_argument("--log", type=Path, metavar="FILE", help="write messages to FILE, errors also to the screen")
        for argument in verb.arguments:
            if argument.positional:
                sub.add_argument(argument.name, type=argument.type, help=argument.help)
                continue
            option = f"--{argument.name.replace('_', '-')}"
            if argument.type is bool:
                sub.add_argument(option, dest=argument.name, action="store_true", help=argument.help)
                continue
            sub.add_argument(
                option,
                dest=argument.name,
                type=argument.type,
                required=argument.required,
                default=argument.default,
                nargs="+" if argument.many else None,
                metavar=argument.name.upper(),
                help=argument.help,
            )
    return parser


class _Formatter(logging.Formatter):
    """Keeps credentials in URLs out of every message, also those of other libraries."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line without credentials."""
        return scrub(super().format(record))


def _set_up_logging(path: Path | None) -> None:
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    screen = logging.StreamHandler()
    screen.setFormatter(_Formatter("%(message)s"))
    if path is None:
        logging.getLogger().addHandler(screen)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, mode="w")
    file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(file)
    # with a log file, the screen shows the errors and what a verb marks as progress
    screen.setLevel(logging.ERROR)
    screen.addFilter(lambda record: record.levelno >= logging.ERROR)
    logging.getLogger().addHandler(screen)
    if os.environ.get("CITYHEADS_BAR"):
        # the workflow has a bar on the screen, which an error takes the place of
        if sys.stderr.isatty():
            screen.setFormatter(_Formatter("\r\033[K%(message)s"))
        return
    progress = logging.StreamHandler()
    progress.setFormatter(_Formatter("%(message)s"))
    logging.getLogger("cityheads.progress").addHandler(progress)


def _die_with_workflow() -> None:
    """Under the workflow, end when Snakemake is killed: an orphan would go on writing beside the next run.

    Linux only (``prctl(PR_SET_PDEATHSIG)``); elsewhere an orphan finishes its own job, which is harmless but for time.
    """
    workflow = os.environ.get("CITYHEADS_WORKFLOW")
    if workflow and sys.platform == "linux":
        import ctypes
        import signal

        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        # Snakemake may have been killed before this line; its orphans are handed to process 1
        if os.getppid() == 1 and workflow != "1":
            os.kill(os.getpid(), signal.SIGKILL)


def _own(config: Config, arguments: Mapping[str, Any]) -> Config:
    """Give the config as a job of a control sees it; that of another job is left as it is.

    A control's settings rest on sections that its verb does not see: on the run under test, for one.

    Raises:
        CityHeadsError: There is no such control.
    """
    control = arguments.get("control")
    if control is not None:
        known = config.untrained_controls + ("ceiling",) * bool(config.ceiling_heads)
        if control not in known:
            made = ", ".join(known) or "none"
            raise CityHeadsError(
                f"config key 'controls.made': no control '{control}' without training here; there are {made}"
            )
        return config.for_control(control)
    return config.for_run(arguments["run"]) if arguments.get("run") in config.trained_controls else config


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; give 0, or 1 after one line that says what is wrong."""
    arguments = vars(_parser().parse_args(argv))
    verb = VERBS[arguments.pop("verb")]
    config_path, log_path = arguments.pop("config", None), arguments.pop("log")
    _set_up_logging(log_path)
    # torch's threads wait for each other spinning; on a machine that does anything else besides, that made a training
    # ten times slower. A short spin costs nothing on an idle one. Read when torch is loaded, so it is set here.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _die_with_workflow()
    try:
        settings: list[Any] = []
        if config_path is not None:
            from cityheads.config import load_config

            settings.append(_own(load_config(config_path), arguments).restricted_to(verb.sections))
        module, _, function = verb.function.partition(":")
        getattr(importlib.import_module(module), function)(*settings, **arguments)
    except CityHeadsError as error:
        log.error("cityheads %s: %s", verb.name, error)
        return 1
    except KeyboardInterrupt:
        log.error("cityheads %s: interrupted", verb.name)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        log.error("cityheads %s: unexpected %s: %s%s", verb.name, type(error).__name__, error,
                  f"; the traceback is in {log_path}" if log_path else "")  # fmt: skip
        trace = scrub(traceback.format_exc())
        if log_path:
            with log_path.open("a") as stream:
                stream.write(trace)
        else:
            sys.stderr.write(trace)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
