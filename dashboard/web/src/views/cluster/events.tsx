import { useMemo, useRef, useState } from "preact/hooks";

import { useResource, type Resource } from "../../api/resource";
import type { ClusterEvent, Events as EventsAnswer } from "../../api/types";
import { cut, exactly, moment, SENTENCE_MAX } from "../../lib/format";
import { runPath, useParameter } from "../../state/address";
import { Choice, Empty, Name, Panel, Problem, Said } from "../../ui/basic";
import { useWidth } from "../../ui/width";

/** So many are shown. */
const SHOWN = 300;

/** What happened in the cluster, or to one run. */
export function useEvents(run?: string): Resource<EventsAnswer> {
  const of = run === undefined ? "" : `&run=${encodeURIComponent(run)}`;
  return useResource<EventsAnswer>(`/api/v1/events?limit=${SHOWN}${of}`, {
    topic: run === undefined ? "cluster" : `run:${run}`,
    gapMs: 500,
  });
}

/** What happened, newest first, and where it lies in time. */
export function Events({ run, of }: { run?: string; of: Resource<EventsAnswer> }) {
  const { data, error, reload } = of;
  const [kind, setKind] = useParameter("events");
  const [chosen, setChosen] = useState<number | null>(null);
  const list = useRef<HTMLOListElement>(null);
  const events = useMemo(
    () => (data?.events ?? []).slice(-SHOWN),
    [data],
  );
  const kinds = useMemo(() => [...new Set(events.map((event) => event.kind))].sort(), [events]);
  const shown = events.filter((event) => kind === "" || event.kind === kind);
  const choose = (sequence: number) => {
    setChosen(sequence);
    list.current?.querySelector(`[data-sequence="${sequence}"]`)?.scrollIntoView({ block: "nearest" });
  };
  const options = [{ value: "", label: "all" }, ...kinds.map((kind) => ({ value: kind, label: words(kind) }))];
  return (
    <Panel
      title="Events"
      note={`${shown.length}${events.length === SHOWN ? " newest" : ""}`}
      tools={<Choice label="Kind" value={kind} options={options} set={setKind} />}
    >
      {error && <Problem error={error} retry={reload} />}
      {shown.length === 0 && !error && <Empty>{events.length === 0 ? "Nothing has happened yet." : `None of this kind among the newest ${events.length}.`}</Empty>}
      {shown.length > 0 && (
        <>
          <TimeLine events={shown} chosen={chosen} choose={choose} />
          <ol class={run === undefined ? "events" : "events of-run"} ref={list} tabIndex={0} aria-label="Events, newest first">
            {shown.toReversed().map((event) => (
              <li
                key={event.sequence}
                data-sequence={event.sequence}
                class={event.sequence === chosen ? "chosen" : ""}
              >
                <time title={exactly(event.at)}>{moment(event.at)}</time>
                <bdi class={`kind tone-${tone(event.kind)}`}>{words(event.kind)}</bdi>
                {run === undefined && (event.run === null ? <span /> : <RunLink run={event.run} />)}
                <Said>{event.text}</Said>
              </li>
            ))}
          </ol>
        </>
      )}
    </Panel>
  );
}

function RunLink({ run }: { run: string }) {
  return (
    <a href={runPath(run)}>
      <Name>{run}</Name>
    </a>
  );
}

/** A kind of event in words. */
export function words(kind: string): string {
  return cut(kind, 40).replaceAll("_", " ");
}

/** What a kind of event means for those who look: trouble, success, or neither. */
export function tone(kind: string): "bad" | "warn" | "good" | "plain" {
  if (/lost|fail|broken/.test(kind)) return "bad";
  if (/roll|stop|prun|left/.test(kind)) return "warn";
  return /complet|join|resum/.test(kind) ? "good" : "plain";
}

const LANES = ["bad", "warn", "good", "plain"] as const;
const LANE_NAMES = { bad: "losses", warn: "stops", good: "joined, done", plain: "other" };

/** Each event as a dot over time; a lane for each tone, so that nothing is told by colour alone. */
function TimeLine(props: { events: ClusterEvent[]; chosen: number | null; choose: (sequence: number) => void }) {
  const [frame, width] = useWidth();
  const { events } = props;
  const [first, last] = [events[0]?.at ?? 0, events.at(-1)?.at ?? 1];
  const lanes = LANES.filter((lane) => events.some((event) => tone(event.kind) === lane));
  const left = 78;
  const place = (at: number) => left + ((at - first) / Math.max(1, last - first)) * Math.max(1, width - left - 14);
  const height = lanes.length * 18 + 20;
  const labels = width > 600 ? [0, 0.25, 0.5, 0.75, 1] : [0, 1];
  return (
    <div ref={frame} class="time-line">
      <svg width={width} height={height} role="img" aria-label={`${events.length} events from ${exactly(first)} to ${exactly(last)}`}>
        {lanes.map((lane, i) => (
          <g key={lane} transform={`translate(0 ${i * 18 + 9})`}>
            <text x={0} y={4} class="axis-text">
              {LANE_NAMES[lane]}
            </text>
            <line x1={left} x2={width - 8} class="lane" />
            {events
              .filter((event) => tone(event.kind) === lane)
              .map((event) => (
                <circle
                  key={event.sequence}
                  cx={place(event.at)}
                  r={event.sequence === props.chosen ? 6 : 4}
                  class={`dot tone-${lane}`}
                  onClick={() => props.choose(event.sequence)}
                >
                  <title>{`${moment(event.at)} ${words(event.kind)}: ${cut(event.text, SENTENCE_MAX)}`}</title>
                </circle>
              ))}
          </g>
        ))}
        {labels.map((at) => (
          <text
            key={at}
            x={left + at * (width - left - 14)}
            y={height - 4}
            class="axis-text"
            text-anchor={at === 0 ? "start" : at === 1 ? "end" : "middle"}
          >
            {moment(first + at * (last - first))}
          </text>
        ))}
      </svg>
    </div>
  );
}
