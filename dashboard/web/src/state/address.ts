import { useCallback, useEffect, useState } from "preact/hooks";

/** What the address says is to be seen. */
export type Route =
  | { view: "cluster" }
  | { view: "run"; name: string }
  | { view: "sweep"; name: string }
  | { view: "compare" }
  | { view: "unknown" };

/** Reads a path. */
export function routeOf(path: string): Route {
  const [first, second, ...rest] = path.replace(/^\/+|\/+$/g, "").split("/");
  if (!first) return { view: "cluster" };
  if (rest.length > 0) return { view: "unknown" };
  if (first === "compare" && second === undefined) return { view: "compare" };
  if (second && (first === "runs" || first === "sweeps")) {
    const name = decoded(second);
    if (name !== null) return { view: first === "runs" ? "run" : "sweep", name };
  }
  return { view: "unknown" };
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

/** The address of a run, with what else it should say. */
export function runPath(name: string, query: Record<string, string> = {}): string {
  return withQuery(`/runs/${encodeURIComponent(name)}`, query);
}

/** The address of a sweep. */
export function sweepPath(name: string, query: Record<string, string> = {}): string {
  return withQuery(`/sweeps/${encodeURIComponent(name)}`, query);
}

/** The address of several runs beside each other. */
export function comparePath(names: string[]): string {
  return withQuery("/compare", { runs: listText(names) });
}

function withQuery(path: string, query: Record<string, string>): string {
  const text = new URLSearchParams(query).toString();
  return text ? `${path}?${text}` : path;
}

/** A list as one parameter: names with a comma or a percent sign have those encoded. */
export function listText(list: string[]): string {
  return list.map((one) => one.replace(/[%,]/g, encodeURIComponent)).join(",");
}

/** The list that a parameter holds, without repetitions. */
export function listOf(text: string): string[] {
  const list = text.split(",").filter((one) => one !== "");
  return [...new Set(list.map((one) => decoded(one) ?? one))];
}

/** A range as a parameter, "from~to"; null where there is none. */
export function rangeText(range: readonly [number, number] | null): string {
  return range ? `${round(range[0])}~${round(range[1])}` : "";
}

/** The range that a parameter holds; null if it holds none. */
export function rangeOf(text: string): [number, number] | null {
  const parts = text.split("~").map((part) => (part === "" ? NaN : Number(part)));
  const [from, to] = parts;
  if (parts.length !== 2 || from === undefined || to === undefined) return null;
  return Number.isFinite(from) && Number.isFinite(to) && from < to ? [from, to] : null;
}

function round(value: number): string {
  return String(Number(value.toPrecision(6)));
}

/** The query with a parameter set; one that has its usual value is left out. */
export function withParameter(query: string, key: string, value: string, usual: string): string {
  const parameters = new URLSearchParams(query);
  if (value === usual) parameters.delete(key);
  else parameters.set(key, value);
  return parameters.toString();
}

/** Where we are; the address bar follows a moment later, since browsers allow few changes a second. */
let current = { path: "/", query: "" };
const listeners = new Set<() => void>();
let writing: ReturnType<typeof setTimeout> | undefined;

function takeOver(): void {
  current = { path: location.pathname, query: location.search.replace(/^\?/, "") };
  for (const listener of listeners) listener();
}

function address(): string {
  return current.query ? `${current.path}?${current.query}` : current.path;
}

function write(): void {
  clearTimeout(writing);
  writing = undefined;
  if (location.pathname + location.search !== address()) history.replaceState(null, "", address());
}

/** Begins to follow the address bar and clicks on links within the page. */
export function followAddress(): void {
  takeOver();
  addEventListener("popstate", takeOver);
  addEventListener("pagehide", write);
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname.startsWith("/api") || link.hash) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}

/** Goes to another view. */
export function go(to: string): void {
  write();
  if (to !== address()) history.pushState(null, "", to);
  takeOver();
  scrollTo(0, 0);
}

/** Replaces the query as a whole, as a saved view does. */
export function setQuery(query: string): void {
  write();
  if (query === current.query) return;
  history.pushState(null, "", query ? `${current.path}?${query}` : current.path);
  takeOver();
}

/** The query as it is now. */
export function queryNow(): string {
  return current.query;
}

/** Where we are. */
export function useAddress(): { path: string; query: string } {
  const [, redraw] = useState(current);
  useEffect(() => {
    const listener = () => redraw(current);
    listeners.add(listener);
    listener();
    return () => void listeners.delete(listener);
  }, []);
  return current;
}

/** A parameter of the address: what it says, and how to set it. */
export function useParameter(key: string, usual = ""): [string, (value: string) => void] {
  const { query } = useAddress();
  const value = new URLSearchParams(query).get(key) ?? usual;
  const set = useCallback(
    (next: string) => {
      const query = withParameter(current.query, key, next, usual);
      if (query === current.query) return;
      current = { ...current, query };
      for (const listener of listeners) listener();
      writing ??= setTimeout(write, 150);
    },
    [key, usual],
  );
  return [value, set];
}
