/** Colours for values: viridis, which is read alike with most kinds of colour blindness. */

const STOPS: [number, number, number][] = [
  [68, 1, 84],
  [72, 36, 117],
  [65, 68, 135],
  [53, 95, 141],
  [42, 120, 142],
  [33, 145, 140],
  [34, 168, 132],
  [68, 191, 112],
  [122, 209, 81],
  [189, 223, 38],
  [253, 231, 37],
];

/** The colour at a place between 0 and 1, as red, green and blue. On a dark ground the darkest part is left out. */
export function rampRgb(at: number, dark: boolean): [number, number, number] {
  const place = (dark ? 0.18 + 0.82 * clamp(at) : 0.94 * clamp(at)) * (STOPS.length - 1);
  const i = Math.min(STOPS.length - 2, Math.floor(place));
  const [a, b] = [STOPS[i], STOPS[i + 1]];
  if (!a || !b) return [0, 0, 0];
  const mix = (k: 0 | 1 | 2) => Math.round(a[k] + (b[k] - a[k]) * (place - i));
  return [mix(0), mix(1), mix(2)];
}

/** The same as a style. */
export function ramp(at: number, dark: boolean): string {
  return `rgb(${rampRgb(at, dark).join(" ")})`;
}

function clamp(at: number): number {
  return Math.min(1, Math.max(0, at));
}

/** Colours of lines beside each other, by the style sheet's names. */
export const LINES = ["line1", "line2", "line3", "line4", "line5", "line6", "line7", "line8"] as const;

/** The name of the colour of the line with this index. */
export function lineColor(index: number): string {
  return LINES[index % LINES.length] ?? LINES[0];
}
