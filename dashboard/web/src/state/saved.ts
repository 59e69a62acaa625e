import { useState } from "preact/hooks";

/** A view that somebody keeps: a name for a query of the address. */
export interface SavedView {
  name: string;
  query: string;
}

/** So many are kept for one sweep. */
const MOST = 50;

function read(key: string): SavedView[] {
  try {
    const list: unknown = JSON.parse(localStorage.getItem(key) ?? "[]");
    return Array.isArray(list) ? list.filter(isView).slice(0, MOST) : [];
  } catch {
    return [];
  }
}

function isView(one: unknown): one is SavedView {
  const view = one as Partial<SavedView> | null;
  return typeof view?.name === "string" && typeof view.query === "string";
}

/** The views that this browser keeps for a sweep. */
export function useSavedViews(sweep: string) {
  const key = `phalanx.views.${sweep}`;
  const [, redraw] = useState(0);
  const write = (list: SavedView[]) => {
    localStorage.setItem(key, JSON.stringify(list.slice(-MOST)));
    redraw((n) => n + 1);
  };
  return {
    views: read(key),
    save: (name: string, query: string) =>
      write([...read(key).filter((view) => view.name !== name), { name, query }]),
    remove: (name: string) => write(read(key).filter((view) => view.name !== name)),
  };
}
