import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { ApiError, api, get } from "../../api/client";
import { follow } from "../../api/live";
import type { Log, LogLine, Run } from "../../api/types";
import { cut, exactly, moment, SENTENCE_MAX } from "../../lib/format";
import { useParameter } from "../../state/address";
import { Check, Choice, Empty, Name, Panel, Problem } from "../../ui/basic";

/** So many lines are asked for at once. */
const PAGE = 500;

/** So many are on the page at most; older ones go. */
const MOST = 5_000;

/** At least so long between two requests, in milliseconds. */
const GAP_MS = 500;

/** What the run and its workers wrote: the newest lines, followed, and older ones on demand. */
export function LogTab({ run }: { run: Run }) {
  const [search, setSearch] = useParameter("search");
  const [source, setSource] = useParameter("source");
  const [tail, setTail] = useParameter("tail", "1");
  const log = useLog(run.name, search, source, tail === "1");
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = end.current;
    if (box && tail === "1") box.scrollTop = box.scrollHeight;
  }, [log.lines, tail]);
  const ranks = useMemo(() => ranksOf(run), [run.members, run.generations]);
  const options = [{ value: "", label: "all" }, ...sourcesOf(log.sources, source, ranks)];
  return (
    <Panel title="Log" note={`${log.lines.length} lines`}>
      <div class="look">
        <label class="field">
          <span>Search</span>
          <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
        <Choice label="Source" value={source} options={options} set={setSource} />
        <Check label="Follow" checked={tail === "1"} set={(checked) => setTail(checked ? "1" : "0")} />
      </div>
      {log.error && <Problem error={log.error} />}
      {log.lines.length === 0 && !log.error && (
        <Empty>{search || source ? "No line matches. Change the search or the source." : "No line yet."}</Empty>
      )}
      {log.lines.length > 0 && (
        <div class="log" ref={end} role="log" aria-label="Log" tabIndex={0}>
          {log.hasOlder && (
            <button class="small" onClick={log.older}>
              Older lines
            </button>
          )}
          {log.lines.map((line) => (
            <div key={line.sequence} class={`log-line level-${known(line.level)}`}>
              <time title={exactly(line.at)}>{moment(line.at)}</time>
              <span class="level">{known(line.level) === "other" ? "" : line.level}</span>
              <span class="source" title={ranks.get(line.source)?.said}>
                <Name>{line.source}</Name>
                {ranks.has(line.source) && <small> rank {ranks.get(line.source)?.rank}</small>}
              </span>
              <bdi class="log-text">{cut(line.text, SENTENCE_MAX)}</bdi>
            </div>
          ))}
        </div>
      )}
    </Panel>
  );
}

/** A worker's place in a group of a run. */
interface Place {
  rank: number;
  /** In words. */
  said: string;
}

/** The place of each worker in the newest group that it was in, by its short id, as lines of the log name it. */
export function ranksOf(run: Pick<Run, "members" | "generations" | "generation">): Map<string, Place> {
  const places = new Map<string, Place>();
  const put = (workers: string[], generation: number) =>
    workers.forEach((worker, rank) => places.set(worker.slice(-8), { rank, said: `rank ${rank} of generation ${generation}` }));
  for (const { workers, generation } of run.generations) put(workers, generation);
  put(run.members, run.generation);
  return places;
}

/** What can be chosen: ranks first, in their order, then whoever else wrote. */
function sourcesOf(sources: readonly string[], chosen: string, ranks: ReadonlyMap<string, Place>) {
  const all = chosen === "" || sources.includes(chosen) ? sources : [...sources, chosen];
  const order = (one: string) => ranks.get(one)?.rank ?? Infinity;
  const label = (one: string) => (ranks.has(one) ? `rank ${ranks.get(one)?.rank}: ${one}` : one);
  return all.toSorted((a, b) => order(a) - order(b) || (a < b ? -1 : 1)).map((one) => ({ value: one, label: label(one) }));
}

function known(level: string): string {
  return ["error", "warn", "info", "debug"].includes(level) ? level : "other";
}

/** Lines of a log with one search, in order. */
function useLog(name: string, search: string, source: string, live: boolean) {
  const [lines, setLines] = useState<LogLine[]>([]);
  const [sources, setSources] = useState<string[]>([]);
  const [error, setError] = useState<ApiError | null>(null);
  const [hasOlder, setHasOlder] = useState(false);
  const next = useRef<number | null>(null);
  const filter = `limit=${PAGE}&search=${encodeURIComponent(search)}&source=${encodeURIComponent(source)}`;
  const ask = (rest: string, cancel?: AbortSignal) => get<Log>(api("runs", name, `/log?${filter}${rest}`), cancel);
  const learn = (log: Log) => {
    const seen = log.sources ?? log.lines.map((line) => line.source);
    setSources((old) => (seen.every((one) => old.includes(one)) ? old : [...new Set([...old, ...seen])].sort()));
    setError(null);
  };

  useEffect(() => {
    const cancel = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let begun = false;
    const failed = (cause: unknown) => {
      if (!cancel.signal.aborted) setError(cause instanceof ApiError ? cause : new ApiError(0, String(cause), null));
    };
    const first = async () => {
      const log = await ask("", cancel.signal);
      learn(log);
      setLines(log.lines);
      setHasOlder(log.lines.length >= PAGE);
      next.current = log.next ?? log.lines.at(-1)?.sequence ?? null;
      begun = true;
    };
    const more = async () => {
      const log = await ask(`&after=${next.current ?? 0}`, cancel.signal);
      learn(log);
      next.current = log.next ?? log.lines.at(-1)?.sequence ?? next.current;
      if (log.lines.length > 0) setLines((old) => joined(old, log.lines));
    };
    // Typing asks once, when it pauses.
    timer = setTimeout(() => void first().catch(failed), search === "" ? 0 : 250);
    const leave = live
      ? follow(`run:${name}`, () => {
          if (!begun) return;
          clearTimeout(timer);
          timer = setTimeout(() => void more().catch(failed), GAP_MS);
        })
      : () => {};
    return () => {
      clearTimeout(timer);
      cancel.abort();
      leave();
    };
  }, [name, filter, live]);

  const older = async () => {
    try {
      const log = await ask(`&before=${lines[0]?.sequence ?? 0}`);
      learn(log);
      const first = lines[0]?.sequence ?? 0;
      const before = log.lines.filter((line) => line.sequence < first);
      setHasOlder(before.length >= PAGE);
      setLines((old) => joined(before, old));
    } catch (cause) {
      setError(cause instanceof ApiError ? cause : new ApiError(0, String(cause), null));
    }
  };
  return { lines, sources, error, hasOlder: hasOlder && lines.length < MOST, older: () => void older() };
}

/** Two portions of a log, each line once. */
function joined(before: readonly LogLine[], after: readonly LogLine[]): LogLine[] {
  const last = before.at(-1)?.sequence ?? -1;
  return [...before, ...after.filter((line) => line.sequence > last)].slice(-MOST);
}
