"""Draws what bench/fcsd/run.py reports, a panel a model: KL to the teacher over the budget of tokens; the teachers' own loss."""

import math

COLOURS = {"untrained": "#888888", "calibrated": "#c2410c", "paper": "#1d4ed8", "ours": "#047857", "ours+": "#a16207", "sft": "#7c3aed"}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 420, 320, 56, 40, 48


def panel(title, curves, left):
    """`curves`: name -> {budget: [KL of each seed]}; budgets stand side by side, the KL on a logarithmic axis."""
    budgets = sorted({budget for points in curves.values() for budget in points})
    values = [kl for points in curves.values() for kls in points.values() for kl in kls]
    low, high = math.log(min(values) * 0.9), math.log(max(values) * 1.1)

    def x(budget):
        return left + LEFT + 30 + budgets.index(budget) * (WIDTH - LEFT - 60) / max(1, len(budgets) - 1)

    def y(kl):
        return TOP + (high - math.log(kl)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{left + WIDTH / 2:.0f}" y="20" text-anchor="middle" font-weight="bold">{title}</text>']
    for kl in (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1):
        if low <= math.log(kl) <= high:
            parts.append(f'<line x1="{left + LEFT}" x2="{left + WIDTH - 10}" y1="{y(kl):.1f}" y2="{y(kl):.1f}" stroke="#ddd"/>'
                         f'<text x="{left + LEFT - 6}" y="{y(kl) + 4:.1f}" text-anchor="end">{kl:g}</text>')
    for budget in budgets:
        parts.append(f'<text x="{x(budget):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{100 * budget:g} %</text>')
    for i, (name, points) in enumerate(curves.items()):
        means = [(x(budget), y(math.exp(sum(map(math.log, kls)) / len(kls)))) for budget, kls in sorted(points.items())]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in means)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/>')
        for budget, kls in points.items():
            parts += [f'<circle cx="{x(budget):.1f}" cy="{y(kl):.1f}" r="3" fill="{COLOURS[name]}"/>' for kl in kls]
        parts.append(f'<text x="{left + LEFT + 12}" y="{HEIGHT - BOTTOM - 14 * (len(curves) - i) + 8}" fill="{COLOURS[name]}">{name}</text>')
    return parts


def loss_panel(title, curves, left):
    """`curves`: name -> [(step, loss)]; the first quarter of the longest is left out."""
    begin = max(step for points in curves.values() for step, _ in points) / 4
    shown = {name: [point for point in points if point[0] >= begin] for name, points in curves.items()}
    steps, losses = zip(*(point for points in shown.values() for point in points))
    low, high = min(losses), max(losses)

    def at(step, loss):
        return (left + LEFT + (step - begin) / (max(steps) - begin) * (WIDTH - LEFT - 20),
                TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM))

    parts = [f'<text x="{left + WIDTH / 2:.0f}" y="20" text-anchor="middle" font-weight="bold">{title}</text>']
    for loss in (low + (high - low) * share / 4 for share in range(5)):
        y = at(begin, loss)[1]
        parts.append(f'<line x1="{left + LEFT}" x2="{left + WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                     f'<text x="{left + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:.3f}</text>')
    for step in (begin, *(points[-1][0] for points in shown.values())):
        parts.append(f'<text x="{at(step, low)[0]:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{step:.0f}</text>')
    for name, points in shown.items():
        colour = "#1d4ed8" if name == "teacher" else "#c2410c"
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x, y = at(*points[-1])
        parts.append(f'<text x="{x - 14:.1f}" y="{y + 4:.1f}" text-anchor="end" fill="{colour}">{name}</text>')
    return parts


def draw(path, models, panel, caption):
    """`models`: title -> the curves of `panel`."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(models)}" height="{HEIGHT}" '
             f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for i, (title, curves) in enumerate(models.items()):
        parts += panel(title, curves, i * WIDTH)
    parts.append(f'<text x="{WIDTH * len(models) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{caption}</text></svg>')
    path.write_text("\n".join(parts) + "\n")
