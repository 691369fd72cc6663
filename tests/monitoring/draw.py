"""Draws the panels of the dashboard at their places, from the data of a run: draw.py DATA PICTURE."""

import json
import math
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter
from PIL import Image

COLUMNS = 24
# Inches for a column and a line of Grafana's grid.
WIDTH, HEIGHT = 0.62, 0.27
NAMES = {"blue": "#5794f2", "light-blue": "#8ab8ff", "green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "dark-red": "#c4162a",
         "yellow": "#fade2a", "purple": "#b877d9", "gray": "#8e8e8e"}
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a", "#447ebc", "#c15c17"]


def main(data, picture):
    with open(data, encoding="utf-8") as file:
        run = json.load(file)
    panels = run["panels"]
    lines = max(panel["panel"]["gridPos"]["y"] + panel["panel"]["gridPos"]["h"] for panel in panels)
    plt.rcParams.update({"font.size": 6.5, "axes.edgecolor": "#cccccc", "axes.linewidth": 0.6, "xtick.color": "#555555", "ytick.color": "#555555"})
    figure = plt.figure(figsize=(COLUMNS * WIDTH, lines * HEIGHT), dpi=72, facecolor="#f4f5f5")
    for panel in panels:
        draw(figure, lines, panel["panel"], panel["series"], run["begun"], run["end"])
    for row in run["rows"]:
        figure.text(0.006, 1 - (row["gridPos"]["y"] + 0.75) / lines, row["title"], va="center", fontsize=8.5, color="#24292e")
    figure.canvas.draw()
    image = Image.frombuffer("RGBA", figure.canvas.get_width_height(), figure.canvas.buffer_rgba())
    image.convert("RGB").quantize(160, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(picture, optimize=True)


def draw(figure, lines, panel, series, begun, end):
    place = panel["gridPos"]
    box = [place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / lines, place["w"] / COLUMNS, place["h"] / lines]
    gap_x, gap_y = 0.004, 0.002
    back = figure.add_axes([box[0] + gap_x / 2, box[1] + gap_y / 2, box[2] - gap_x, box[3] - gap_y], facecolor="white")
    back.set_xticks([])
    back.set_yticks([])
    figure.text(box[0] + 0.008, box[1] + box[3] - 0.003, panel["title"], va="top", fontsize=7.5, weight="bold", color="#24292e")
    if panel["type"] == "stat":
        draw_stat(back, panel, series)
        return
    axes = figure.add_axes([box[0] + 0.036, box[1] + 0.0245 , box[2] - 0.046, box[3] - 0.0365])
    unit = panel["options"]["yAxis"]["unit"] if panel["type"] == "heatmap" else panel["fieldConfig"]["defaults"]["unit"]
    axes.set_xlim(0, end - begun)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}s"))
    axes.tick_params(length=2, width=0.5, pad=2)
    if panel["type"] == "heatmap":
        draw_heatmap(axes, series, begun)
        return
    draw_lines(axes, panel, series, begun)
    axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] < 1e-9:
        axes.set_ylim(0, 1)
    axes.grid(color="#eeeeee", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    columns = 2 if any(len(name) > 20 for name, _ in series) else 4
    axes.legend(loc="upper left", bbox_to_anchor=(-0.12, -0.11), ncol=columns, frameon=False, fontsize=5.5, handlelength=1, columnspacing=0.8, labelspacing=0.2)


def draw_lines(axes, panel, series, begun):
    custom = panel["fieldConfig"]["defaults"]["custom"]
    fixed = {over["matcher"]["options"]: over["properties"][0]["value"]["fixedColor"] for over in panel["fieldConfig"]["overrides"]}
    below = {}
    # What is always zero is one entry of the legend for all.
    zero = [name for name, values in series if all(float(value) == 0 for _, value in values)]
    many = len(zero) > 4
    for at, (name, values) in enumerate(series):
        if many and name in zero:
            continue
        color = NAMES.get(fixed.get(name), PALETTE[at % len(PALETTE)])
        times = [time - begun for time, _ in values]
        numbers = [float(value) for _, value in values]
        label = name.strip() or panel["title"]
        if custom["stacking"]["mode"] == "normal":
            bottoms = [below.get(time, 0) for time in times]
            axes.bar(times, numbers, bottom=bottoms, width=0.9, color=color, label=label)
            below.update({time: bottom + number for time, bottom, number in zip(times, bottoms, numbers)})
        else:
            axes.plot(times, numbers, color=color, linewidth=1, label=label)
            axes.fill_between(times, numbers, color=color, alpha=0.1, linewidth=0)
    if many:
        axes.plot([], [], color="#cccccc", label=f"{len(zero)} more at 0")


def draw_heatmap(axes, series, begun):
    bounds = sorted((float(name.replace("+Inf", "inf")), {time: float(value) for time, value in values}) for name, values in series)
    times = sorted({time for _, values in bounds for time in values})
    rows = []
    lower = dict.fromkeys(times, 0.0)
    for _, values in bounds:
        # What Grafana does with the format `heatmap`: each bucket minus the one below it.
        rows.append([values.get(time, 0) - lower[time] for time in times])
        lower = {time: values.get(time, lower[time]) for time in times}
    most = max(max(row) for row in rows)
    cells = [[value if value > 1e-9 else math.nan for value in row] for row in rows]
    edges = [time - begun for time in times] + [times[-1] - begun + 1]
    axes.pcolormesh(edges, range(len(bounds) + 1), cells, cmap="Oranges", norm=LogNorm(vmin=0.3, vmax=max(most, 1)), edgecolors="white", linewidth=0.2)
    axes.set_yticks([row + 1 for row in range(len(bounds))], [shown(bound, "s") if math.isfinite(bound) else "Inf" for bound, _ in bounds], fontsize=5)


def draw_stat(axes, panel, series):
    defaults = panel["fieldConfig"]["defaults"]
    value = float(series[0][1][-1][1]) if series else math.nan
    color = "blue"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    text = f"{value:.0f}" if defaults.get("decimals") == 0 else shown(value, defaults["unit"])
    for mapping in defaults["mappings"]:
        text = mapping["options"].get(text, {}).get("text", text)
    axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=15, color=NAMES[color], transform=axes.transAxes)


def shown(value, unit):
    """A value as Grafana shows it in the unit."""
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit in ("bytes", "Bps"):
        for name in ("B", "KiB", "MiB", "GiB", "TiB"):
            if value < 1024 or name == "TiB":
                return f"{value:.3g} {name}" + ("/s" if unit == "Bps" else "")
            value /= 1024
    if unit == "s":
        for limit, divisor, name in ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h"), (31536000, 86400, "d")):
            if value < limit:
                return f"{value / divisor:.3g} {name}"
        return f"{value / 31536000:.4g} years"
    suffix = {"cps": "/s", "reqps": "/s"}.get(unit, "")
    return f"{value:.4g}{suffix}"


main(*sys.argv[1:])
