"""What each head loses when one input modality is removed at test time."""

from __future__ import annotations

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cityheads.core.text import share, signed
from cityheads.evaluation.ablation import averaged
from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.sheet import Drawing, Sheet, beside

__all__ = ["NAME", "draw_modality_ablation"]

NAME = "modality_ablation"
_TITLE = "Modality ablation at test time"
_ROW_IN = 0.46
#: Name, colour, colour of text, marker and offset in rows of the two models.
_MODELS = (
    ("shared", style.SHARED, style.SHARED, "o", -0.2),
    ("single-task", style.SINGLE, style.SINGLE_INK, "D", 0.2),
)


def draw_modality_ablation(evidence: Evidence) -> Drawing | None:
    """Draw what each head loses without each input modality; None where that was not measured."""
    results, heads = evidence.results, evidence.heads
    shared = averaged([results.metrics(evidence.shared_run, seed) for seed in results.seeds])
    if not shared:
        return None
    tables = {evidence.shared_run: shared}
    for run in dict.fromkeys(evidence.baselines[head] for head in heads):
        tables[run] = averaged([results.metrics(run, seed) for seed in results.seeds]) or {}
    height = _ROW_IN * len(shared) * len(heads)
    sheet = Sheet(_TITLE, simulated=evidence.simulated, height=height)
    rows = sheet.body.subplots(len(heads), 1, sharex=True, squeeze=False)[:, 0]
    told = []
    for axes, head in zip(rows, heads, strict=True):
        axes.set_title(f"{head}: {evidence.metric(head).title}")
        axes.axvline(0, color=style.INK, linewidth=0.9, zorder=1)
        for line, modality in enumerate(shared):
            for (kind, color, ink, marker, offset), run in zip(
                _MODELS, (evidence.shared_run, evidence.baselines[head]), strict=True
            ):
                found = tables[run].get(modality, {}).get(head, {"delta_pp": None, "interval_pp": None})
                text = "n/a (undefined here)"
                if found["delta_pp"] is not None:
                    text = f"{signed(found['delta_pp'], 2)} pp"
                    axes.plot(
                        found["delta_pp"], line + offset, marker, color=color, markersize=6, markeredgecolor="white",
                        markeredgewidth=0.9, zorder=4,
                    )  # fmt: skip
                    ends = found["interval_pp"]
                    if ends is not None:
                        axes.plot(
                            ends, [line + offset] * 2, color=color, linewidth=2, solid_capstyle="butt", zorder=3
                        )  # fmt: skip
                    text += ", no interval" if ends is None else f"  [{signed(ends[0], 2)}, {signed(ends[1], 2)}]"
                told.append(f"{head} without {modality}, {kind}, {text}")
                beside(axes, line + offset, text, right=True, fontsize=7.5, color=ink)
        axes.set_ylim(len(shared) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.set_yticks(range(len(shared)), list(shared))
        axes.tick_params(axis="y", length=0, labelcolor=style.INK, labelsize=8.5)
        axes.grid(True, axis="x")
        axes.spines["left"].set_visible(False)
    rows[-1].xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    rows[-1].xaxis.set_major_formatter(lambda value, _: signed(value, 0 if value == round(value) else 1))
    rows[-1].set_xlabel("score without the modality minus score with it, percentage points")
    entries = [
        Line2D([], [], color=color, marker=marker, markersize=6, markeredgecolor="white", label=f"{kind} model")
        for kind, color, _, marker, _ in _MODELS
    ]
    sheet.body.legend(handles=entries, loc="outside upper left", ncols=2)
    sheet.fit(list(rows), height)
    confidence = share(results.metrics(evidence.shared_run, results.seeds[0])["confidence"])
    return Drawing(
        id=NAME,
        section=NAME,
        title=_TITLE,
        caption=f"What the models lose on the test parents when one input modality is removed, with {confidence} "
        "intervals over parents. Left of zero, it is missed.",
        alt=f"Differences in percentage points: {'; '.join(told)}.",
        figure=sheet.figure,
    )
