import { useEffect, useState } from "preact/hooks";

import type { Change } from "./types";

/** What a view follows: "cluster", "store", "run:NAME" or "sweep:NAME". */
export type Topic = string;

/** Told what has changed; null when that is not known, as after a lost connection. */
type Listener = (change: Change | null) => void;

/** How the one connection stands. `lost` says when the page tries again. */
export type Connection = { state: "connecting" } | { state: "open" } | { state: "lost"; retryAt: number };

/** Waits between tries, in milliseconds. */
const RETRY_MS = [1_000, 2_000, 4_000, 8_000, 10_000];

const listeners = new Map<Topic, Set<Listener>>();
const watchers = new Set<() => void>();
let connection: Connection = { state: "connecting" };
let source: EventSource | null = null;
let topics = "";
let failures = 0;
let retrying: ReturnType<typeof setTimeout> | undefined;
let settling = false;

function set(next: Connection): void {
  connection = next;
  for (const watcher of watchers) watcher();
}

/** Connects anew if other topics are wanted than before. Views come and go in one go, so it waits for all of them. */
function settle(): void {
  if (settling) return;
  settling = true;
  queueMicrotask(() => {
    settling = false;
    const wanted = [...listeners.keys()].sort().map(encodeURIComponent).join(",");
    if (wanted !== topics || (!source && !retrying)) connect(wanted);
  });
}

function connect(wanted: string): void {
  clearTimeout(retrying);
  retrying = undefined;
  source?.close();
  source = null;
  topics = wanted;
  if (!wanted) return;
  const opened = new EventSource(`/api/v1/stream?topics=${wanted}`);
  source = opened;
  opened.onopen = () => {
    const again = failures > 0;
    failures = 0;
    set({ state: "open" });
    if (again) for (const set of listeners.values()) for (const listener of set) listener(null);
  };
  opened.onerror = () => {
    opened.close();
    if (source !== opened) return;
    source = null;
    const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)] ?? 0;
    failures += 1;
    set({ state: "lost", retryAt: Date.now() + wait });
    retrying = setTimeout(() => connect(topics), wait);
  };
  for (const topic of listeners.keys()) {
    opened.addEventListener(topic, (event) => tell(topic, (event as MessageEvent<string>).data));
  }
}

function tell(topic: Topic, data: string): void {
  let change: Change | null = null;
  try {
    change = JSON.parse(data) as Change;
  } catch {
    // Then we know only that something has changed.
  }
  for (const listener of listeners.get(topic) ?? []) listener(change);
}

/** Follows a topic until the returned function is called. */
export function follow(topic: Topic, listener: Listener): () => void {
  const set = listeners.get(topic) ?? new Set();
  listeners.set(topic, set.add(listener));
  settle();
  return () => {
    set.delete(listener);
    if (set.size === 0) listeners.delete(topic);
    settle();
  };
}

/** Tries at once. */
export function retryNow(): void {
  connect(topics);
}

/** How the connection stands. */
export function useConnection(): Connection {
  const [, redraw] = useState(0);
  useEffect(() => {
    const watcher = () => redraw((n) => n + 1);
    watchers.add(watcher);
    return () => void watchers.delete(watcher);
  }, []);
  return connection;
}
