import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError, get } from "./client";
import { follow, type Topic } from "./live";
import type { Change } from "./types";

/** Something that the coordinator was asked for. */
export interface Resource<T> {
  /** The newest answer; kept while the next one is on its way, and when it fails. */
  data: T | null;
  /** Why the last request failed. */
  error: ApiError | null;
  /** Asks again. */
  reload: () => void;
}

/** How a resource stays fresh. */
interface Options<T> {
  /** Its changes make the page ask again. */
  topic?: Topic;
  /** At least so long between two requests. */
  gapMs?: number;
  /** Puts what a message says into what is there, so that the page need not ask again at once. */
  merge?: (data: T, change: Change) => T;
}

/** A slow answer must not keep the coordinator busy: between requests it has so many times as long. */
const REST_FACTOR = 4;

/** Where messages say what has changed, the whole is asked for so much later. */
const MERGED_MS = 5_000;

/** What messages say is taken over together, so often. */
const MERGE_GAP_MS = 500;

/**
 * Asks for `path` now and whenever its topic says that something has changed, never twice at a time. With another path,
 * what the old one gave goes, unless `path` differs in the query alone.
 */
export function useResource<T>(path: string | null, options: Options<T> = {}): Resource<T> {
  const [state, setState] = useState<{ of: string | null; data: T | null; error: ApiError | null }>({
    of: null,
    data: null,
    error: null,
  });
  const latest = useRef(options);
  latest.current = options;
  const ask = useRef(() => {});

  useEffect(() => {
    if (path === null) {
      setState({ of: null, data: null, error: null });
      return;
    }
    const cancel = new AbortController();
    const gap = latest.current.gapMs ?? 1_000;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let merging: ReturnType<typeof setTimeout> | undefined;
    const changes: Change[] = [];
    let busy = false;
    let again = false;
    let notBefore = 0;
    let failures = 0;

    const now = async () => {
      timer = undefined;
      busy = true;
      again = false;
      const begun = performance.now();
      try {
        const data = await get<T>(path, cancel.signal);
        failures = 0;
        setState({ of: path, data, error: null });
      } catch (cause) {
        if (cancel.signal.aborted) return;
        const error = cause instanceof ApiError ? cause : new ApiError(0, String(cause), null);
        failures += 1;
        setState((old) => ({ of: path, data: samePlace(old.of, path) ? old.data : null, error }));
        // The connection may be back before the stream notices anything.
        if (error.status === 0 || error.status >= 500) again = true;
      }
      busy = false;
      const took = performance.now() - begun;
      notBefore = performance.now() + Math.max(gap * (1 + Math.min(failures, 8)), took * REST_FACTOR);
      if (again) soon();
    };
    const takeOver = () => {
      merging = undefined;
      const [merge, all] = [latest.current.merge, changes.splice(0)];
      if (!merge) return;
      setState((old) => (old.data !== null && old.of === path ? { ...old, data: all.reduce(merge, old.data) } : old));
    };
    const soon = () => {
      again = true;
      if (busy || timer !== undefined) return;
      timer = setTimeout(() => void now(), Math.max(0, notBefore - performance.now()));
    };
    ask.current = () => {
      notBefore = 0;
      clearTimeout(timer);
      timer = undefined;
      soon();
    };
    void now();
    const topic = latest.current.topic;
    const leave = topic
      ? follow(topic, (change) => {
          const merge = latest.current.merge;
          if (merge && change) {
            changes.push(change);
            merging ??= setTimeout(takeOver, MERGE_GAP_MS);
            notBefore = Math.max(notBefore, performance.now() + MERGED_MS);
          }
          soon();
        })
      : () => {};
    return () => {
      clearTimeout(timer);
      clearTimeout(merging);
      cancel.abort();
      leave();
    };
  }, [path]);

  const stale = state.of !== path && !samePlace(state.of, path);
  return { data: stale ? null : state.data, error: stale ? null : state.error, reload: () => ask.current() };
}

function samePlace(one: string | null, other: string | null): boolean {
  return one !== null && other !== null && one.split("?")[0] === other.split("?")[0];
}
