#!/usr/bin/env python3
"""Draws a line for each name in a table of "name,x,y" as an SVG, x growing tenfold. Nothing but Python itself is needed.

    tests/bench/plot.py "Bytes for each key" "keys" < docs/key-memory.csv > docs/key-memory.svg
"""
import csv
import math
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 60, 190, 40, 40
COLOURS = ["#1f5fa8", "#c2571a", "#2b8a3e", "#8a2b6f", "#666666"]


def main():
    title, unit = sys.argv[1], sys.argv[2]
    lines = {}
    for name, x, y in csv.reader(sys.stdin):
        lines.setdefault(name, []).append((float(x), float(y)))
    xs = [x for line in lines.values() for x, _ in line]
    first, last = math.log10(min(xs)), math.log10(max(xs))
    top = max(y for line in lines.values() for _, y in line)
    step = 10 ** math.floor(math.log10(top))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2) if top / (step * part) <= 8)
    top = math.ceil(top / step) * step

    def across(x):
        return LEFT + (math.log10(x) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def up(y):
        return HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{title}</text>',
    ]
    for tick in range(round(top / step) + 1):
        y = tick * step
        out.append(f'<path d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for power in range(math.ceil(first), math.floor(last) + 1):
        x = across(10**power)
        out.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eeeeee"/>')
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10**power:,}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{unit}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in sorted(line))
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = max(line)
        out.append(f'<text x="{across(x) + 8:.1f}" y="{up(y) + 4:.1f}" fill="{colour}">{name}</text>')
    print("\n".join(out + ["</svg>"]))


main()
