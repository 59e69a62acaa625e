import type { Json } from "../api/types";

/** Every value of a specification with the path that leads to it, in the order of the paths. */
export function flatten(value: Json): Map<string, string> {
  const found: [string, string][] = [];
  walk("", value, found);
  found.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return new Map(found);
}

function walk(path: string, value: Json, found: [string, string][]): void {
  if (value === null || typeof value !== "object") return void found.push([path, said(value)]);
  if (Array.isArray(value)) {
    const plain = value.every((one) => one === null || typeof one !== "object");
    if (plain) return void found.push([path, `[${value.map(said).join(", ")}]`]);
    value.forEach((one, i) => walk(`${path}[${i}]`, one, found));
    return;
  }
  for (const [key, one] of Object.entries(value)) walk(path === "" ? key : `${path}.${key}`, one, found);
}

function said(value: Json): string {
  return value === null ? "none" : String(value);
}
