import type { ClusterEvent, Run } from "../../api/types";
import { cut, duration, exactly, moment, percent, SENTENCE_MAX } from "../../lib/format";
import { Panel, Stat } from "../../ui/basic";
import { useWidth } from "../../ui/width";
import { tone, words } from "../cluster/events";
import { workers } from "./series";

/** The groups of a run over time, and how much of the time went into steps that count. */
export function Failures({ run, events }: { run: Run; events: readonly ClusterEvent[] }) {
  const { generations, goodput } = run;
  if (generations.length === 0) return null;
  return (
    <Panel
      title="Groups and failures"
      note={`${generations.length} ${generations.length === 1 ? "generation" : "generations"}, ${run.failures} ${run.failures === 1 ? "failure" : "failures"}`}
    >
      <GroupLine run={run} troubles={events.filter(({ kind }) => tone(kind) === "bad" || kind === "rolled_back")} />
      {goodput && (
        <dl class="stats">
          <Stat label="Goodput" title="Of the time of all steps, the part in steps that count">
            {percent(goodput.share)}
          </Stat>
          <Stat label="In steps that count">{duration(goodput.productive_micros / 1000)}</Stat>
          <Stat label="Lost or made again">{duration(goodput.lost_micros / 1000)}</Stat>
        </dl>
      )}
    </Panel>
  );
}

const HEIGHT = 44;

function GroupLine({ run, troubles }: { run: Run; troubles: readonly ClusterEvent[] }) {
  const [frame, width] = useWidth();
  const { generations } = run;
  const first = Math.min(run.submitted_at, generations[0]?.at ?? run.submitted_at);
  const newest = run.checkpoints.at(-1)?.at ?? first;
  const ended = run.ended_at ?? Math.max(Date.now(), newest);
  const place = (at: number) => ((Math.min(at, ended) - first) / Math.max(1, ended - first)) * width;
  const wanted = Math.max(run.workers_wanted, ...generations.map(({ workers }) => workers.length));
  return (
    <div ref={frame} class="group-line">
      <svg width={width} height={HEIGHT + 18} role="img" aria-label={generations.map(spoken).join("; ")}>
        <rect width={width} height={HEIGHT} class="gap" />
        {generations.map((one, i) => {
          const left = place(one.at);
          const right = place(one.ended_at ?? generations[i + 1]?.at ?? ended);
          const height = (one.workers.length / Math.max(1, wanted)) * HEIGHT;
          return (
            <g key={one.generation}>
              <rect
                x={left}
                y={HEIGHT - height}
                width={Math.max(1, right - left - 1)}
                height={height}
                class={one.workers.length < run.workers_wanted ? "group short" : "group"}
              >
                <title>{cut(`${spoken(one)}, ${exactly(one.at)}\n${one.workers.join("\n")}`, SENTENCE_MAX)}</title>
              </rect>
              {right - left > 46 && (
                <text x={left + 5} y={HEIGHT - 6} class="group-text">
                  {workers(one)}
                </text>
              )}
            </g>
          );
        })}
        {troubles.map(({ sequence, at, kind, text }) => (
          <g key={sequence} class="trouble" transform={`translate(${place(at)} 0)`}>
            <line y1={0} y2={HEIGHT} />
            <path d={`M -5 0 H 5 L 0 7 Z`} />
            <title>{`${moment(at)} ${words(kind)}: ${cut(text, SENTENCE_MAX)}`}</title>
          </g>
        ))}
        <text x={0} y={HEIGHT + 14} class="axis-text">
          {moment(first)}
        </text>
        <text x={width} y={HEIGHT + 14} class="axis-text" text-anchor="end">
          {moment(ended)}
        </text>
      </svg>
    </div>
  );
}

function spoken(one: Run["generations"][number]): string {
  return `generation ${one.generation}: ${workers(one)} from step ${one.from_step}`;
}
